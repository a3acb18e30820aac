"""Alignments and corruptions from outside: those of other packages are found by name, the examples do what they say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from data_shards.support.errors import ConfigError
from data_shards.support.plugins import load_plugins
from finetune.alignment import ALIGNMENTS, create_alignment
from finetune.shift.corruptions import CORRUPTIONS, SEVERITIES
from pretrain.views.random import sample_keys
from tests.data_shards.support.test_plugins import install
from tests.documents import ROOT, blocks
from tests.registries import restored


@pytest.fixture(autouse=True)
def registries() -> Iterator[None]:
    """What is registered is gone afterwards, and packages are looked for anew."""
    load_plugins.cache_clear()
    with restored(ALIGNMENTS, CORRUPTIONS):
        yield
    load_plugins.cache_clear()


def example(name: str) -> str:
    return next(code for code in blocks(ROOT / "docs" / "shift.md", "python") if code.startswith(f"# {name}\n"))


def test_those_of_other_packages_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="unknown alignment 'mean_distance'"):
        create_alignment({"name": "mean_distance"}, 3)
    load_plugins.cache_clear()
    distance, white = (example(f"finetune/{file}.py") for file in ("alignment/mean_distance", "shift/corruptions/salt"))
    install(tmp_path, "mean_distance", distance, ALIGNMENTS.plugins)
    install(tmp_path, "salt", white, CORRUPTIONS.plugins)
    monkeypatch.syspath_prepend(tmp_path)
    source, target = torch.randn(2, 9, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = create_alignment({"name": "mean_distance", "weight": 3}, 3)(source, target, 0.0)
    assert float(found) == pytest.approx(3 * float((source.mean(0) - target.mean(0)).square().sum()))
    images, keys = torch.full((2, 1, 60, 60), 0.5), sample_keys(0, 0, 0, torch.arange(2), 0)
    salt: Any = CORRUPTIONS.named("salt")()
    shares = [(salt(images, keys, severity) == 1).double().mean() for severity in SEVERITIES]
    assert shares == pytest.approx(salt.amounts, abs=0.01) and shares == sorted(shares)


def test_the_groups_that_the_document_shows_are_those_that_are_read() -> None:
    shown = re.findall(r'entry-points\."([\w.]+)"', (ROOT / "docs" / "shift.md").read_text())
    assert shown == [ALIGNMENTS.plugins, CORRUPTIONS.plugins]
