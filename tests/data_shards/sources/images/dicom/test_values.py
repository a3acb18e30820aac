from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut

from data_shards.sources.images.dicom import find_series, read_series
from data_shards.support.errors import DataError
from tests.data_shards.sources.images.dicom.make import canonical, header, item, read, save, stack

RAMP = np.arange(16, dtype=np.int16).reshape(4, 4)


def one(tmp_path: Path, pixels: np.ndarray, **attributes: Any) -> np.ndarray:
    return read(save(header(pixels, **attributes), tmp_path / "one.dcm")).pixels[0]


def test_every_slice_has_its_own_slope_as_in_pet(tmp_path: Path) -> None:
    def change(number: int, dataset: Dataset) -> None:
        dataset.Modality, dataset.RescaleSlope, dataset.RescaleIntercept = "PT", str(0.25 * (number + 1)), "-1.5"

    image = read(stack(tmp_path, change=change))
    slopes = 0.25 * np.arange(1, 6)[:, None, None]
    assert image.pixels.dtype == np.float32 and np.array_equal(image.pixels[0], canonical() * slopes - 1.5)


@pytest.mark.parametrize(
    "low, high, slope, intercept, dtype",
    [
        *((0, 255, 1, 0, np.uint8), (0, 256, 1, 0, np.int16), (-1, 200, 1, 0, np.int16), (0, 32768, 1, 0, np.uint16)),
        *((0, 4095, 1, -1024, np.int16), (-2000, 30000, 1, 35000, np.uint16), (-1, 32768, 1, 0, np.float32)),
        *((0, 70000, 1, 0, np.float32), (0, 10, 25, 5, np.uint8), (0, 10, -3, 0, np.int16), (0, 9, 0.5, 0, np.float32)),
        *((0, 30000, 1000000, 0, np.float32), (0, 2**31 - 1, 1, 0, np.float32)),
    ],
)
def test_whole_values_take_the_smallest_type_that_holds_them_exactly(
    low: int, high: int, slope: float, intercept: int, dtype: type, tmp_path: Path
) -> None:
    stored = np.array([[low, high], [low, high]], np.int32)
    found = one(tmp_path, stored, RescaleSlope=str(slope), RescaleIntercept=str(intercept))
    exact = stored.astype(np.float64) * slope + intercept
    assert found.dtype == dtype and np.array_equal(found, exact.astype(dtype))


def test_volumes_take_one_type_for_all_slices(tmp_path: Path) -> None:
    def change(number: int, dataset: Dataset) -> None:
        dataset.RescaleSlope, dataset.RescaleIntercept = "1", ("-40000" if number == 4 else "0")

    # Slices of uint8, int16 and one below the range of int16: only floats hold all.
    image = read(stack(tmp_path, change=change))
    expected = canonical() - 40000 * (np.arange(5) == 4)[:, None, None]
    assert image.pixels.dtype == np.float32 and np.array_equal(image.pixels[0], expected)


def test_modality_table_is_applied_as_pydicom_applies_it(tmp_path: Path) -> None:
    table = item(LUTDescriptor=[10, 3, 16], LUTData=[7, 9, 100, 4000, 65535, 3, 2, 1, 0, 12], ModalityLUTType="US")
    table[0]["LUTDescriptor"].VR, table[0]["LUTData"].VR = "SS", "US"
    path = save(header(RAMP, ModalityLUTSequence=table), tmp_path / "a.dcm")
    dataset = pydicom.dcmread(path)
    expected = apply_modality_lut(dataset.pixel_array, dataset)
    assert np.array_equal(read(path).pixels[0], expected) and expected.max() == 65535


@pytest.mark.parametrize(
    "dtype, stored, total",
    [(np.uint16, 12, 4095), (np.uint16, 16, 65535), (np.uint8, 8, 255), (np.int16, 16, -1), (np.int16, 12, -1)],
)
def test_monochrome1_is_turned_round_in_the_range_of_its_stored_bits(
    dtype: type, stored: int, total: int, tmp_path: Path
) -> None:
    pixels = np.arange(16).reshape(4, 4).astype(dtype)
    attributes = {"PhotometricInterpretation": "MONOCHROME1", "BitsStored": stored, "HighBit": stored - 1}
    assert np.array_equal(one(tmp_path, pixels, **attributes), total - pixels.astype(int))
    # With slope and intercept the ends of the range move along: 2 * (total - x) + 10.
    scaled = one(tmp_path, pixels, RescaleSlope="2", RescaleIntercept="10", **attributes)
    assert np.array_equal(scaled, 2 * (total - pixels.astype(np.int64)) + 10)
    halves = one(tmp_path, pixels, RescaleSlope="0.5", RescaleIntercept="0", **attributes)
    assert np.array_equal(halves, (total - pixels.astype(int)) / 2)


@pytest.mark.parametrize("signed", [False, True])
def test_bits_that_are_not_of_the_value_are_cleared_and_the_sign_is_extended(signed: bool, tmp_path: Path) -> None:
    values = np.array([[0, 1, 2047], [1500, 7, 100]], np.uint16)
    expected = values.astype(int)
    if signed:
        values[0, 1], expected[0, 1] = 0xFFF, -1
    rubbish = np.array([[0xF, 0x3, 0x0], [0x9, 0x8, 0xA]], np.uint16)
    attributes = {"BitsStored": 12, "PixelRepresentation": int(signed)}
    assert np.array_equal(one(tmp_path, values | rubbish << 12, HighBit=11, **attributes), expected)
    # Files from before 2014 may keep the value in the upper bits, and overlays below.
    assert np.array_equal(one(tmp_path, values << 4 | rubbish, HighBit=15, **attributes), expected)


def test_single_bits_are_unpacked(tmp_path: Path) -> None:
    bits = np.random.default_rng(0).integers(0, 2, (8, 8), dtype=np.uint8)
    dataset = header(bits, BitsAllocated=1, BitsStored=1, HighBit=0)
    dataset.PixelData = np.packbits(bits, bitorder="little").tobytes()
    assert np.array_equal(read(save(dataset, tmp_path / "a")).pixels[0], bits)


@pytest.mark.parametrize("keyword, dtype", [("FloatPixelData", np.float32), ("DoubleFloatPixelData", np.float64)])
def test_float_pixels_are_float32(keyword: str, dtype: type, tmp_path: Path) -> None:
    values = np.linspace(-1, 1, 12).astype(dtype).reshape(3, 4)

    def write(name: str, pixels: np.ndarray) -> Path:
        dataset = header(np.zeros((3, 4), np.uint8))
        del dataset.PixelData, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation
        dataset.BitsAllocated = 8 * pixels.dtype.itemsize
        setattr(dataset, keyword, pixels.tobytes())
        return save(dataset, tmp_path / name)

    found = read(write("a", values)).pixels[0]
    assert found.dtype == np.float32 and np.array_equal(found, values.astype(np.float32))
    values[1, 1] = np.nan
    series, _ = find_series([write("b", values)])
    with pytest.raises(DataError, match="not finite"):
        read_series(series[0])


def test_slope_zero_is_refused_at_its_slice(tmp_path: Path) -> None:
    def change(number: int, dataset: Dataset) -> None:
        dataset.RescaleIntercept, dataset.RescaleSlope = "0", "0" if number == 2 else "1"

    series, _ = find_series(stack(tmp_path, change=change))
    with pytest.raises(DataError, match="^slice 3 of 5: RescaleSlope is 0"):
        read_series(series[0])


def test_an_image_that_claims_more_than_the_limit_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    dataset = header(np.zeros((4, 4), np.uint16), Rows=65535, Columns=65535)
    series, ((_, reason, _),) = find_series([save(dataset, tmp_path / "a")])
    assert not series and "8589672450 bytes" in reason
    dataset = header(np.zeros((4, 4), np.uint16), NumberOfFrames=2**31 - 1)
    series, ((_, reason, _),) = find_series([save(dataset, tmp_path / "b")])
    assert not series and "bytes" in reason
