"""npy files: axes, orders of bytes and of axes, and what is refused."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from data_shards.sources.images.array import read_array
from data_shards.support.errors import DataError
from data_shards.vocabulary import Modality

PLANE = np.arange(6, dtype=np.uint16).reshape(2, 3)
CUBE = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
BLOCK = np.arange(120, dtype=np.float32).reshape(2, 3, 4, 5)


def saved(path: Path, array: np.ndarray) -> Path:
    np.save(path, array)
    return path


def header(text: str, values: bytes = b"", version: tuple[int, int] = (1, 0)) -> bytes:
    """An npy file whose header is ``text``."""
    size = len(text).to_bytes(2 if version == (1, 0) else 4, "little")
    return b"\x93NUMPY" + bytes(version) + size + text.encode() + values


def refused(path: Path, content: bytes, message: str, **options: object) -> None:
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_array(path, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_two_axes_need_no_words(tmp_path: Path):
    image = read_array(saved(tmp_path / "a.npy", PLANE), modality=Modality.mri)
    np.testing.assert_array_equal(image.pixels, PLANE[None])
    assert image.modality is Modality.mri and image.spacing_mm == ()


@pytest.mark.parametrize(
    "axes, array, expected",
    [
        ("HWC", CUBE, CUBE.transpose(2, 0, 1)),
        ("CHW", CUBE, CUBE),
        ("DHW", CUBE, CUBE[None]),
        ("CDHW", BLOCK, BLOCK),
        ("DHWC", BLOCK, BLOCK.transpose(3, 0, 1, 2)),
    ],
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_more_axes_are_what_the_user_says(
    tmp_path: Path, axes: str, array: np.ndarray, expected: np.ndarray, order: str
):
    path = saved(tmp_path / "a.npy", np.array(array, order=order))
    assert np.lib.format.open_memmap(path).flags.f_contiguous == (order == "F")
    pixels = read_array(path, axes=axes).pixels  # type: ignore[arg-type]
    np.testing.assert_array_equal(pixels, expected)
    assert pixels.flags.c_contiguous


@pytest.mark.parametrize(
    "array, axes, message",
    [
        (CUBE, None, "has 3 axes and axes is not given; expected axes: HWC or CHW or DHW"),
        (CUBE, "CDHW", "has 3 axes and axes is CDHW"),
        (BLOCK, None, "has 4 axes and axes is not given; expected axes: CDHW or DHWC"),
        (BLOCK, "HWC", "has 4 axes"),
        (np.zeros(4), None, "has 1 axes; 2, 3 or 4"),
        (np.zeros((1, 1, 1, 1, 1)), None, "has 5 axes"),
        (np.float32(3), None, "has 0 axes"),
    ],
)
def test_axes_are_never_guessed(tmp_path: Path, array: np.ndarray, axes: str | None, message: str):
    with pytest.raises(DataError, match=message):
        read_array(saved(tmp_path / "a.npy", array), axes=axes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "stored, expected",
    [
        (">u2", "u2"),
        (">i4", "i4"),
        (">f4", "f4"),
        (">f8", "f4"),
        ("i1", "i1"),
        ("?", "u1"),
        ("f2", "f4"),
        ("i8", "i4"),
        ("u8", "u4"),
    ],
)
def test_all_dtypes_become_those_of_samples(tmp_path: Path, stored: str, expected: str):
    array = np.array([[0, 1], [1, 1]]).astype(stored)
    pixels = read_array(saved(tmp_path / "a.npy", array)).pixels
    np.testing.assert_array_equal(pixels[0], array)
    assert pixels.dtype == np.dtype(expected) and pixels.dtype.isnative


@pytest.mark.parametrize("value", [2**31, -(2**31) - 1])
def test_integers_that_do_not_fit_are_refused(tmp_path: Path, value: int):
    with pytest.raises(DataError, match="do not fit in 32"):
        read_array(saved(tmp_path / "a.npy", np.array([[value, 0]])))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39])
def test_numbers_that_are_not_finite_are_refused(tmp_path: Path, value: float):
    with pytest.raises(DataError, match="not finite"):
        read_array(saved(tmp_path / "a.npy", np.array([[value, 0.0]])))


def test_objects_are_refused_and_never_unpickled(tmp_path: Path):
    ran = tmp_path / "ran"

    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (ran,)  # type: ignore[return-value]

    np.save(tmp_path / "a.npy", np.array([[Trap()]], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="dtype kind 'O'"):
        read_array(tmp_path / "a.npy")
    assert not ran.exists()
    np.load(tmp_path / "a.npy", allow_pickle=True)
    assert ran.exists()  # the trap works


@pytest.mark.parametrize("dtype", ["S4", "U4", "c8", "m8[s]", "M8[s]", "V4", [("a", "u1"), ("b", "f4")], "g"])
def test_what_is_no_number_of_at_most_64_bits_is_refused(tmp_path: Path, dtype: object):
    with pytest.raises(DataError, match="dtype kind"):
        read_array(saved(tmp_path / "a.npy", np.zeros((2, 2), dtype)))  # type: ignore[arg-type]


@pytest.mark.parametrize("side", [10**6, 2**40, 2**70])
def test_a_header_that_claims_a_giant_is_refused_before_memory_is_taken(tmp_path: Path, side: int):
    text = f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({side}, {side})}}\n"
    refused(tmp_path / "a.npy", header(text, bytes(64)), "would take|header")


@pytest.mark.parametrize("shape", ["(0, 4)", "(-1, 4)", "(2.5, 4)", "('2', 4)", "4", "None", "(True, 4)"])
def test_a_shape_that_cannot_be_is_refused(tmp_path: Path, shape: str):
    text = f"{{'descr': '<u1', 'fortran_order': False, 'shape': {shape}}}\n"
    refused(tmp_path / "a.npy", header(text, bytes(8)), "header|axis|axes|cut short")


@pytest.mark.parametrize("change", [-1, -12])
def test_missing_bytes_are_refused(tmp_path: Path, change: int):
    refused(tmp_path / "a.npy", saved(tmp_path / "a.npy", PLANE).read_bytes()[:change], "cut short")


@pytest.mark.parametrize("count", [1, 512])
def test_trailing_bytes_are_passed_over_and_told(tmp_path: Path, count: int):
    path = saved(tmp_path / "a.npy", PLANE)
    assert read_array(path).notes == ()
    path.write_bytes(path.read_bytes() + bytes(count))
    image = read_array(path)
    np.testing.assert_array_equal(image.pixels, PLANE[None])
    assert "bytes follow" in image.notes[0]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        b"\x93NUMPY\1\0\xff\xff{",
        b"\x93NUMPY\3\0\4\0\0\0{}\n ",
        b"\x93NUMPY\7\0",
        header("__import__('os').system('true')"),
        header("{'descr': '<u1', 'fortran_order': False}"),
        header("(" * 500),
        header("{'descr': '|O', 'fortran_order': False, 'shape': (1, 1)}\n"),
        header("[" * 9000 + "]" * 9000),
        header("\0"),
    ],
)
def test_a_broken_header_is_refused(tmp_path: Path, content: bytes):
    refused(tmp_path / "a.npy", content, "npy header|dtype kind")


def test_the_second_version_of_the_format_is_read(tmp_path: Path):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, PLANE, version=(2, 0))
    (tmp_path / "a.npy").write_bytes(stream.getvalue())
    np.testing.assert_array_equal(read_array(tmp_path / "a.npy").pixels[0], PLANE)
