"""Files that unpack to far more than they are, read by a process that has little memory."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

from data_shards.support import limits
from data_shards.support.errors import DataError
from data_shards.support.limits import MAX_BYTES, BoundedReader, check_size, open_regular
from tests.data_shards.sources.images.make import nifti, patched, png

ROOT = Path(__file__).resolve().parents[4]
# Address space above what the libraries take, and what the process may grow by; Pillow's page bound is far above.
SPACE, GROWTH = 400, 100


def child(path: Path) -> tuple[str, int]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.data_shards.sources.images.child_limits", str(SPACE), str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    said, grown = done.stdout.splitlines()
    return said, int(grown)


def small(path: Path, **fields: object) -> bytes:
    return nifti(path, np.ones((4, 4, 4), np.int16), np.eye(4), **fields).read_bytes()


def zeros(mebibytes: int) -> bytes:
    return bytes(mebibytes << 20)


def test_a_file_that_inflates_beyond_its_header_is_refused_in_bounded_memory(tmp_path: Path):
    content = small(tmp_path / "v.nii")
    tail = gzip.compress(zeros(64), 9)
    (tmp_path / "v.nii.gz").write_bytes(gzip.compress(content) + tail * 32)  # two gibibytes of zeros
    said, grown = child(tmp_path / "v.nii.gz")
    assert said == "refused: the NIfTI volume holds far more bytes than its header describes" and grown < GROWTH


def test_a_file_of_zeros_alone_is_refused_in_bounded_memory(tmp_path: Path):
    (tmp_path / "v.nii.gz").write_bytes(gzip.compress(zeros(64), 9) * 32)
    said, grown = child(tmp_path / "v.nii.gz")
    assert said.startswith("refused: not a NIfTI file") and grown < GROWTH


def test_a_header_that_asks_for_more_than_a_gzip_file_can_hold_is_refused_at_once(tmp_path: Path):
    content = small(tmp_path / "v.nii", dim=[3, 900, 900, 900, 1, 1, 1, 1])
    (tmp_path / "v.nii.gz").write_bytes(gzip.compress(content))
    said, grown = child(tmp_path / "v.nii.gz")
    assert said.startswith("refused: the NIfTI volume is cut short") and grown < GROWTH


def test_a_header_that_asks_for_more_than_a_plain_file_holds_is_refused_at_once(tmp_path: Path):
    small(tmp_path / "v.nii", dim=[3, 900, 900, 900, 1, 1, 1, 1])
    said, grown = child(tmp_path / "v.nii")
    assert said.startswith("refused: the NIfTI volume is cut short") and grown < GROWTH


def test_extensions_of_a_gibibyte_are_refused(tmp_path: Path):
    content = small(tmp_path / "v.nii", vox_offset=float(1 << 30))
    (tmp_path / "v.nii.gz").write_bytes(gzip.compress(content) + gzip.compress(zeros(64), 9) * 16)
    said, grown = child(tmp_path / "v.nii.gz")
    assert said.startswith("refused: the NIfTI volume begins") and grown < GROWTH


def test_long_extensions_are_passed_over_in_small_pieces(tmp_path: Path):
    content = small(tmp_path / "v.nii")
    patched(tmp_path / "v.nii", vox_offset=352.0 + (48 << 20))
    moved = (tmp_path / "v.nii").read_bytes()[:352] + zeros(48) + content[352:]
    (tmp_path / "v.nii.gz").write_bytes(gzip.compress(moved, 1))
    said, grown = child(tmp_path / "v.nii.gz")
    assert said == "read (1, 4, 4, 4)" and grown < 40


def test_only_the_volume_that_is_wanted_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(limits, "MAX_BYTES", 128)
    stored = np.arange(4 * 64, dtype=np.int16).reshape(4, 4, 4, 4)
    nifti(tmp_path / "v.nii.gz", stored, np.eye(4))
    from data_shards.sources.images.nifti import read_nifti

    assert read_nifti(tmp_path / "v.nii.gz", frame=3, frames="all").pixels.size == 64
    monkeypatch.setattr(limits, "MAX_BYTES", 127)
    with pytest.raises(DataError, match="would take 128 bytes"):
        read_nifti(tmp_path / "v.nii.gz", frame=3, frames="all")


def test_scaling_to_wider_values_counts_before_it_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    nifti(tmp_path / "v.nii", np.ones((4, 4, 4), np.uint8), np.eye(4), scl_slope=0.5, scl_inter=0)
    monkeypatch.setattr(limits, "MAX_BYTES", 100)
    from data_shards.sources.images.nifti import read_nifti

    with pytest.raises(DataError, match="would take 256 bytes"):
        read_nifti(tmp_path / "v.nii")


def test_nifti_2_cannot_claim_more_frames_than_nifti_1(tmp_path: Path):
    path = tmp_path / "v.nii"
    nibabel.save(nibabel.Nifti2Image(np.ones((1, 1, 1), np.uint8), np.eye(4)), path)
    content = bytearray(path.read_bytes())
    header = np.frombuffer(bytes(content[:540]), nibabel.nifti2.header_dtype).copy()
    header["dim"] = [4, 1, 1, 1, 40_000, 1, 1, 1]
    path.write_bytes(header.tobytes() + content[540:] + bytes(40_000))
    from data_shards.sources.images.nifti import read_nifti

    with pytest.raises(DataError, match="40000 frames; at most 32767"):
        read_nifti(path, frames="all")


def test_a_giant_png_takes_no_memory(tmp_path: Path):
    (tmp_path / "p.png").write_bytes(png(65_000, 65_000, zeros(1)))
    said, grown = child(tmp_path / "p.png")
    assert said == "refused: the picture cannot be decoded (DecompressionBombError)" and grown < GROWTH


def test_a_giant_array_takes_no_memory(tmp_path: Path):
    np.save(tmp_path / "a.npy", np.zeros((2, 2), np.uint8))
    content = (tmp_path / "a.npy").read_bytes().replace(b"'shape': (2, 2), }      ", b"'shape': (30000, 60000)}")
    assert b"(30000, 60000)" in content
    (tmp_path / "a.npy").write_bytes(content)
    said, grown = child(tmp_path / "a.npy")
    assert said.startswith("refused: the array is cut short") and grown < GROWTH


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (-1, 2), (MAX_BYTES + 1,), (2**40, 2**40), (MAX_BYTES // 4, 2, 3)])
def test_sizes_are_checked_without_overflow(shape: tuple[int, ...]):
    with pytest.raises(DataError, match="the thing"):
        check_size(shape, np.uint8, "the thing")


def test_the_largest_size_is_accepted():
    assert check_size((MAX_BYTES // 8, 2), np.float32, "the thing") == MAX_BYTES


def test_a_reader_gives_exactly_what_was_asked_for(tmp_path: Path):
    (tmp_path / "f.gz").write_bytes(gzip.compress(bytes(range(100))))
    with open_regular(tmp_path / "f.gz") as file:
        reader = BoundedReader(file, "the thing", inflate=True)
        assert reader.read(3) == b"\0\1\2"
        reader.skip(10)
        assert reader.read_array(2, np.dtype("<u2")).tolist() == [0x0E0D, 0x100F]
        reader.skip(83)
        assert reader.at_end()
        with pytest.raises(DataError, match="the thing is cut short"):
            reader.read(1)
