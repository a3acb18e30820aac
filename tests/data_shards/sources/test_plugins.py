"""A source of another package: its entry point is enough, and what is wrong with it is told with its name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = """
import numpy as np
from data_shards.card import DatasetCard
from data_shards.sample import Image, Sample
from data_shards.sources.base import Source, register_source
from data_shards.support.documents import Document
from data_shards.vocabulary import Modality, Organ, Task


class Config(Document):
    \"\"\"No more than a number.\"\"\"

    count: int = 3


@register_source("NAME")
class Ramps(Source):
    \"\"\"Ramps of a hospital.\"\"\"

    Config = Config

    def __init__(self, count):
        self.count = count
        self.card = DatasetCard(
            name="ramps", title="Ramps", organ="chest", modality="xray", dimensionality="planar",
            task="self_supervised", classes={}, licence="internal", homepage="", source_version="1",
            source_checksum={}, split_rule="all train",
        )

    def __len__(self):
        return self.count

    def sample(self, position):
        pixels = np.arange(64, dtype=np.uint8).reshape(1, 8, 8) + np.uint8(position)
        images = {"image": Image(pixels, Modality.xray)}
        return Sample(f"{position}", images, Organ.chest, f"s{position}", "train", task=Task.self_supervised)

    @classmethod
    def from_config(cls, config):
        return [cls(config.count)]
"""


def install(site: Path, module: str, code: str) -> None:
    """What an installer leaves of a package: its module, and its metadata with an entry point."""
    site.mkdir()
    (site / f"{module}.py").write_text(code)
    info = site / "hospital_tools-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hospital-tools\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[medformer.sources]\nramps = {module}\n")


def medformer(site: Path, *words: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(site), *filter(None, sys.path)])
    return subprocess.run(
        [sys.executable, "-m", "medformer", *words],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_source_of_an_installed_package_is_listed_and_built_by_several_processes(tmp_path: Path) -> None:
    install(tmp_path / "site", "ramps_of_a_hospital", SOURCE.replace("NAME", "ramps"))
    listed = medformer(tmp_path / "site", "shards", "sources")
    assert listed.returncode == 0 and "ramps       Ramps of a hospital." in listed.stdout
    words = ["shards", "build", "ramps", "count=5", "--workers", "2", "--out", str(tmp_path / "out")]
    built = medformer(tmp_path / "site", *words)
    assert built.returncode == 0, built.stderr
    assert "ramps: 5 train" in built.stdout


@pytest.mark.parametrize(
    "code, said",
    [
        ("import a_module_that_is_not_there", "ModuleNotFoundError: No module named 'a_module_that_is_not_there'"),
        (SOURCE.replace("NAME", "phantoms"), "two sources are called 'phantoms'"),
    ],
)
def test_a_package_that_cannot_be_loaded_is_named_with_the_reason(code: str, said: str, tmp_path: Path) -> None:
    install(tmp_path / "site", "broken_of_a_hospital", code)
    done = medformer(tmp_path / "site", "shards", "sources")
    assert done.returncode == 2 and done.stdout == ""
    assert "hospital-tools offers 'ramps' (broken_of_a_hospital) to medformer.sources" in done.stderr
    assert said in done.stderr and done.stderr.count("\n") == 1
