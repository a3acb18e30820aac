"""An objective of another distribution is trained by name, in every process, once it is installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from data_shards.support.errors import DataError
from data_shards.support.plugins import load_plugins
from pretrain.meter import read_metrics
from pretrain.objectives import OBJECTIVES
from pretrain.objectives.simclr import SimCLR
from tests.data_shards.support.test_plugins import install
from tests.pretrain.runs import GROUP_VARIABLES, document, write_document

ROOT = Path(__file__).parents[2]
PULL = """
from pretrain.objectives import Objective, Views
from pretrain.objectives.base import ObjectiveConfig, objective
from pretrain.objectives.collectives import world_size


@objective("pull")
class Pull(Objective):
    class Config(ObjectiveConfig):
        strength: float = 1.0

    def forward(self, backbone, views, progress):
        za, zb = views.embeddings(backbone)
        distance = (za - zb).square().mean(dim=1).sum() * (world_size() / views.total_rows)
        return {"loss": self.config.strength * distance}
"""


@pytest.mark.slow
def test_an_installed_objective_is_trained_by_its_name(shards: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    install(site, "pull", PULL, OBJECTIVES.plugins)
    content = document(shards, tmp_path / "out", objectives={"pull": {"strength": 2.0}}, schedule={"max_steps": 2})
    config = write_document(tmp_path / "config.yaml", content)
    paths = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    # The group of processes that other tests of this process are in is not that of the command.
    alone = {name: value for name, value in os.environ.items() if name not in GROUP_VARIABLES}
    done = subprocess.run(
        [sys.executable, "-m", "pretrain", str(config)],
        cwd=ROOT,
        env={**alone, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = read_metrics(tmp_path / "out" / "metrics.jsonl")
    assert [line["step"] for line in lines] == [1, 2] and "pull/loss" in lines[0]


def test_a_broken_one_is_told_to_who_asks_for_it_and_to_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "crooked", "1 / 0\n", OBJECTIVES.plugins)
    monkeypatch.syspath_prepend(str(tmp_path))
    load_plugins.cache_clear()
    assert OBJECTIVES.named("simclr") is SimCLR
    with pytest.raises(DataError, match=r"crooked offers 'crooked' .* and it cannot be loaded: ZeroDivisionError"):
        OBJECTIVES.named("crooked")
