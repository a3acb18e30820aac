from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.pixels import apply_color_lut, convert_color_space

from data_shards.sources.images.dicom import find_series, read_series
from data_shards.support.errors import DataError
from tests.data_shards.sources.images.dicom.make import header, packaged, read, save

COLOURS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)


@pytest.mark.parametrize("planar", [0, 1])
@pytest.mark.parametrize("frames", [1, 3])
def test_both_planar_configurations_give_channels_first(planar: int, frames: int, tmp_path: Path) -> None:
    pixels = np.stack([COLOURS + number for number in range(frames)])
    dataset = header(pixels if frames > 1 else pixels[0], PlanarConfiguration=planar)
    if planar:
        dataset.PixelData = np.moveaxis(pixels, -1, 1).tobytes()
    series, unused = find_series([save(dataset, tmp_path / "a")])
    assert not unused and len(series) == frames  # colours are no slices: each frame is a plane of its own
    for number, each in enumerate(series):
        image = read_series(each)
        assert image.spacing_mm == () and np.array_equal(image.pixels, np.moveaxis(pixels[number], -1, 0))


def test_ybr_full_is_converted_as_the_standard_says(tmp_path: Path) -> None:
    # PS3.3 section C.7.6.3.1.2, inverted by numpy.
    forward = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
    found = read(save(header(COLOURS, PhotometricInterpretation="YBR_FULL"), tmp_path / "a")).pixels
    expected = np.clip((COLOURS.astype(float) - [0, 128, 128]) @ np.linalg.inv(forward).T, 0, 255)
    assert np.abs(np.moveaxis(found, 0, -1) - expected).max() <= 0.51


def test_ybr_full_422_is_expanded(tmp_path: Path) -> None:
    shared = COLOURS.copy()
    shared[:, 1::2, 1:] = shared[:, ::2, 1:]  # two neighbours share their colour difference
    packed = np.stack([shared[:, ::2, 0], shared[:, 1::2, 0], shared[:, ::2, 1], shared[:, ::2, 2]], axis=-1)
    dataset = header(COLOURS, PhotometricInterpretation="YBR_FULL_422")
    dataset.PixelData = packed.tobytes()
    found = read(save(dataset, tmp_path / "a")).pixels
    assert np.array_equal(np.moveaxis(found, 0, -1), convert_color_space(shared, "YBR_FULL", "RGB"))


@pytest.mark.parametrize("photometric", ["HSV", "CMYK", "YBR_PARTIAL_422", "XYZ"])
def test_other_colour_spaces_are_refused(photometric: str, tmp_path: Path) -> None:
    series, _ = find_series([save(header(COLOURS, PhotometricInterpretation=photometric), tmp_path / "a")])
    with pytest.raises(DataError, match=r"colour space|cannot be decoded"):
        read_series(series[0])


@pytest.mark.parametrize("bits, count, first", [(8, 256, 0), (16, 256, 0), (16, 100, 20)])
def test_palettes_are_looked_up_as_pydicom_does(bits: int, count: int, first: int, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    indices = random.integers(0, 256, (8, 8), dtype=np.uint8)
    dataset = header(indices, PhotometricInterpretation="PALETTE COLOR", **palette(random, bits, count, first))
    path = save(dataset, tmp_path / "a")
    expected = apply_color_lut(indices, pydicom.dcmread(path))
    image = read(path)
    assert image.pixels.dtype == expected.dtype and np.array_equal(np.moveaxis(image.pixels, 0, -1), expected)
    shown = read(path, voi=True).pixels
    assert shown.dtype == np.uint8 and np.array_equal(shown, np.rint(image.pixels / (2**bits - 1) * 255))


def palette(random: np.random.Generator, bits: int, count: int, first: int) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for colour in ("Red", "Green", "Blue"):
        entries = random.integers(0, 2**bits, count).astype(f"<u{bits // 8}")
        content[f"{colour}PaletteColorLookupTableDescriptor"] = [count, first, bits]
        content[f"{colour}PaletteColorLookupTableData"] = entries.tobytes()
    return content


def test_segmented_palettes_are_expanded_as_pydicom_does(tmp_path: Path) -> None:
    content: dict[str, Any] = {}
    for number, colour in enumerate(("Red", "Green", "Blue")):
        words = [0, 2, 100 * number, 500, 1, 100, 40000, 0, 1, 7, 1, 153, 65535 - number]
        content[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        content[f"Segmented{colour}PaletteColorLookupTableData"] = np.array(words, "<u2").tobytes()
    indices = np.arange(256, dtype=np.uint8).reshape(16, 16)
    path = save(header(indices, PhotometricInterpretation="PALETTE COLOR", **content), tmp_path / "a")
    expected = apply_color_lut(indices, pydicom.dcmread(path))
    assert np.array_equal(np.moveaxis(read(path).pixels, 0, -1), expected)


def test_a_palette_shorter_than_it_says_is_refused(tmp_path: Path) -> None:
    content = palette(np.random.default_rng(1), 8, 256, 0)
    content["GreenPaletteColorLookupTableData"] = b"\0" * 100
    dataset = header(np.zeros((4, 4), np.uint8), PhotometricInterpretation="PALETTE COLOR", **content)
    series, _ = find_series([save(dataset, tmp_path / "a")])
    with pytest.raises(DataError, match=r"lookup table holds 100 entries, its descriptor says 256"):
        read_series(series[0])


def test_real_palette_file_is_what_pydicom_looks_up() -> None:
    path = packaged("examples_palette.dcm")
    dataset = pydicom.dcmread(path)
    expected = apply_color_lut(dataset.pixel_array, dataset)
    assert np.array_equal(np.moveaxis(read(path).pixels, 0, -1), expected)
