"""Damaged files of every format end in a sample or in an error for the user: never in a crash, a hang or no memory."""

from __future__ import annotations

import collections
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[4]
# Of one file, and of address space beyond what the libraries take. A page may have 179 million pixels in Pillow.
SECONDS, MEBIBYTES = 20, 1500


def outcomes(folder: Path, seed: int, count: int) -> dict[str, collections.Counter[str]]:
    """What came of ``count`` damaged files, by format."""
    command = [sys.executable, "-m", "tests.data_shards.sources.images.fuzz"]
    numbers = map(str, (seed, count, SECONDS, MEBIBYTES))
    done = subprocess.run(
        [*command, *numbers, str(folder)], cwd=ROOT, capture_output=True, text=True, check=False, timeout=280
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0, f"file {len(lines)} of seed {seed}: status {done.returncode}\n{done.stderr[-3000:]}"
    assert len(lines) == count
    found: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for _, name, outcome in map(str.split, lines):
        found[name][outcome] += 1
    assert not [outcome for counts in found.values() for outcome in counts if "two-lines" in outcome]
    return found


def test_damaged_files_end_in_a_sample_or_an_error(tmp_path: Path):
    found = outcomes(tmp_path, seed=1, count=700)
    assert len(found) == 14
    for name, counts in found.items():
        assert counts.total() == 50
        assert any("refused" in outcome or "unlisted" in outcome for outcome in counts), f"no damage shows in {name}"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 106))
def test_thousands_of_damaged_files_end_in_a_sample_or_an_error(tmp_path: Path, seed: int):
    assert sum(counts.total() for counts in outcomes(tmp_path, seed, 3000).values()) == 3000
