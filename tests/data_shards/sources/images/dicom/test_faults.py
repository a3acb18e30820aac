from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.data_shards.sources.images.dicom import child_mutations
from tests.data_shards.sources.images.dicom.make import packaged, save
from tests.data_shards.sources.images.dicom.test_enhanced import enhanced

ROOT = Path(__file__).resolve().parents[5]
SECONDS, MEBIBYTES = 20, 1024


def run(seed: int, count: int, folder: Path, files: list[Path]) -> Counter[str]:
    command = [sys.executable, child_mutations.__file__, *map(str, (seed, count, SECONDS, MEBIBYTES, folder, *files))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=280)
    assert result.returncode == 0 and not result.stderr, (result.stdout[-200:], result.stderr[-2000:])
    lines = result.stdout.splitlines()
    assert len(lines) == count
    outcomes = Counter(line.split()[2] for line in lines)
    assert set(outcomes) <= {"image", "error", "unused"}
    return outcomes


def test_damaged_native_deflated_run_length_and_enhanced_files_give_an_image_or_an_error(tmp_path: Path) -> None:
    enhanced_file = save(enhanced([2, 0, 1, 4, 3], (10.0, 20.0)), tmp_path / "enhanced.dcm")
    names = ("CT_small.dcm", "MR_small_RLE.dcm", "image_dfl.dcm", "MR_small_bigendian.dcm", "SC_rgb_small_odd.dcm")
    outcomes = run(1, 420, tmp_path, [*(packaged(name) for name in names), enhanced_file])
    assert min(outcomes["image"], outcomes["error"], outcomes["unused"]) > 20, outcomes


def test_damaged_jpeg_files_give_an_image_or_an_error(tmp_path: Path) -> None:
    names = ("JPEG2000.dcm", "MR_small_jpeg_ls_lossless.dcm", "SC_rgb_jpeg_gdcm.dcm", "SC_rgb_small_odd_jpeg.dcm")
    outcomes = run(2, 200, tmp_path, [packaged(name) for name in names])
    assert min(outcomes["image"], outcomes["error"], outcomes["unused"]) > 10, outcomes


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3, 7))
def test_many_more_damaged_files_give_an_image_or_an_error(seed: int, tmp_path: Path) -> None:
    names = ("CT_small.dcm", "MR_small_RLE.dcm", "JPEG2000.dcm", "MR_small_jpeg_ls_lossless.dcm", "JPGExtended.dcm")
    assert run(seed, 1000, tmp_path, [packaged(name) for name in names])["image"]


def test_mutations_change_the_file() -> None:
    content, dice = packaged("CT_small.dcm").read_bytes(), random.Random(0)
    changed = [child_mutations.mutated(content, content, dice) != content for _ in range(100)]
    assert np.mean(changed) > 0.9
