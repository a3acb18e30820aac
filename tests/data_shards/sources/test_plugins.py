"""Sources of other packages: real distributions on the path of a real command."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from data_shards.format.manifest import read_manifest
from data_shards.reading.reader import ShardedDataset
from tests.data_shards.processes import ENVIRONMENT
from tests.test_documents import ROOT, example_file


def install(site: Path, package: str, module: str, code: str, entry: str) -> None:
    """What an installer leaves in ``site-packages``: the module, and metadata with its entry point."""
    site.mkdir(exist_ok=True)
    (site / f"{module}.py").write_text(code)
    metadata = site / f"{package.replace('-', '_')}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[medformer.sources]\n{entry} = {module}\n")


def medformer(site: Path, *words: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(site), ENVIRONMENT["PYTHONPATH"]])
    environment = ENVIRONMENT | {"PYTHONPATH": path, "MEDFORMER_HOME": str(site / "home")}
    command = [sys.executable, "-m", "medformer", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def archive() -> str:
    """The source that the documents show."""
    return example_file(ROOT / "docs" / "shards.md", "data_shards/sources/archive.py")[0]


def test_a_source_of_an_installed_package_builds_as_one_of_ours(tmp_path: Path, archive: str) -> None:
    install(tmp_path / "site", "hospital-tools", "hospital_archive", archive, "archive")
    for patient in range(12):
        folder = tmp_path / "scans" / f"patient-{patient}"
        folder.mkdir(parents=True)
        pixels = np.random.default_rng(patient).integers(0, 256, (9, 7), np.uint8)
        PIL.Image.fromarray(pixels).save(folder / "0.png")
    words = ["archive", f"root={tmp_path / 'scans'}", "--out", str(tmp_path / "out"), "--workers", "2"]
    done = medformer(tmp_path / "site", "shards", "build", *words)
    assert done.returncode == 0, done.stderr
    splits = read_manifest(tmp_path / "out" / "archive").splits  # a new salt, so other patients every time
    assert sum(entry.samples for entry in splits.values()) == 12
    read = ShardedDataset(tmp_path / "out" / "archive", next(iter(splits))).read(np.array([0]))
    assert read.stacked.shape == (1, 1, 9, 7)
    listed = medformer(tmp_path / "site", "shards", "sources")
    assert "archive" in listed.stdout and "Grey PNG files" in listed.stdout


@pytest.mark.parametrize(
    ("code", "entry", "message"),
    [
        ("import no_such_package\n", "archive", r"hospital-tools offers 'archive' \(hospital_archive\)"),
        ("raise ValueError('a licence is missing')\n", "archive", "ValueError: a licence is missing"),
        (
            "",
            "phantoms",
            "source 'phantoms' of hospital_archive has the name of that of data_shards.sources.phantoms",
        ),
    ],
    ids=["import", "error", "name"],
)
def test_a_package_that_cannot_be_used_is_one_line_with_its_name(
    tmp_path: Path, archive: str, code: str, entry: str, message: str
) -> None:
    code = code or archive.replace('@register_source("archive")', f'@register_source("{entry}")')
    install(tmp_path / "site", "hospital-tools", "hospital_archive", code, entry)
    done = medformer(
        tmp_path / "site", "shards", "build", "phantoms", "--set", "phantom-chest-xray", "--out", str(tmp_path)
    )
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1
    assert "hospital-tools" in done.stderr and re.search(message, done.stderr), done.stderr
