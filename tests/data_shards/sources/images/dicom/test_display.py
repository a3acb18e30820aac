from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from data_shards.sources.images.dicom import find_series, read_series
from data_shards.support.errors import DataError
from tests.data_shards.sources.images.dicom.make import canonical, header, item, read, save, stack

RAMP = np.arange(-512, 512, dtype=np.int16).reshape(32, 32)


def save_ramp(tmp_path: Path, **attributes: Any) -> Path:
    return save(header(RAMP, RescaleSlope="2", RescaleIntercept="-100", **attributes), tmp_path / "ramp.dcm")


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID", None])
@pytest.mark.parametrize("center, width", [(40, 400), (-100.5, 1.5), (0, 3000)])
def test_window_is_what_pydicom_computes_scaled_to_255(
    function: str | None, center: float, width: float, tmp_path: Path
) -> None:
    attributes = {"WindowCenter": str(center), "WindowWidth": str(width)}
    path = save_ramp(tmp_path, **attributes | ({"VOILUTFunction": function} if function else {}))
    dataset = pydicom.dcmread(path)
    low, high = (-32768 * 2 - 100, 32767 * 2 - 100)
    with np.errstate(over="ignore"):
        expected = (apply_voi_lut(apply_modality_lut(RAMP, dataset), dataset) - low) / (high - low) * 255
    found = read(path, voi=True).pixels[0]
    # Half a grey level is rounding; exact halves may go either way in floating point.
    assert found.dtype == np.uint8 and np.abs(found - expected).max() <= 0.5 + 1e-9
    assert found.min() < found.max()


def test_the_first_of_several_windows_counts(tmp_path: Path) -> None:
    both = read(save_ramp(tmp_path, WindowCenter=["40", "300"], WindowWidth=["400", "1500"]), voi=True)
    first = read(save_ramp(tmp_path, WindowCenter="40", WindowWidth="400"), voi=True)
    assert np.array_equal(both.pixels, first.pixels)


def test_a_width_of_one_is_a_threshold(tmp_path: Path) -> None:
    found = read(save_ramp(tmp_path, WindowCenter="40", WindowWidth="1"), voi=True).pixels[0]
    assert np.array_equal(found, np.where(RAMP * 2 - 100 > 39.5, 255, 0))


@pytest.mark.parametrize(
    "function, width", [("LINEAR", "0.5"), ("LINEAR_EXACT", "0"), ("SIGMOID", "-1"), ("CUBIC", "9")]
)
def test_windows_that_mean_nothing_are_refused(function: str, width: str, tmp_path: Path) -> None:
    series, _ = find_series([save_ramp(tmp_path, WindowCenter="40", WindowWidth=width, VOILUTFunction=function)])
    with pytest.raises(DataError, match="window width|VOILUTFunction"):
        read_series(series[0], voi=True)
    assert read_series(series[0]).pixels.dtype == np.int16


def test_voi_table_is_what_pydicom_looks_up_and_comes_before_a_window(tmp_path: Path) -> None:
    entries = np.rint(4095 * np.linspace(0, 1, 600) ** 2).astype(int).tolist()
    table = item(LUTDescriptor=[600, -200, 12], LUTData=entries)
    table[0]["LUTDescriptor"].VR, table[0]["LUTData"].VR = "SS", "US"
    path = save_ramp(tmp_path, VOILUTSequence=table, WindowCenter="40", WindowWidth="400")
    dataset = pydicom.dcmread(path)
    values = apply_modality_lut(RAMP, dataset).astype(int)
    dataset.VOILUTSequence[0].LUTDescriptor = [600, -200, 16]  # pydicom takes 8 and 16 bits only
    expected = apply_voi_lut(values, dataset, prefer_lut=True) / 4095 * 255
    found = read(path, voi=True).pixels[0]
    assert np.abs(found - expected).max() <= 0.5 + 1e-9 and found.max() == 255


def test_monochrome1_is_turned_round_after_the_window(tmp_path: Path) -> None:
    attributes = {"WindowCenter": "40", "WindowWidth": "400"}
    plain = read(save_ramp(tmp_path, **attributes), voi=True).pixels
    turned = read(save_ramp(tmp_path, PhotometricInterpretation="MONOCHROME1", **attributes), voi=True).pixels
    assert np.array_equal(turned, 255 - plain)


def test_without_a_window_smallest_and_largest_value_span_the_greys(tmp_path: Path) -> None:
    volume = read(stack(tmp_path / "a"), voi=True)
    expected = (canonical() - canonical().min()) / (canonical().max() - canonical().min()) * 255
    assert np.array_equal(volume.pixels[0], np.rint(expected)) and volume.pixels.dtype == np.uint8
    flat = read(save(header(np.full((4, 4), 7, np.uint8)), tmp_path / "flat"), voi=True)
    assert np.array_equal(flat.pixels, np.zeros((1, 4, 4)))


def test_a_volume_is_shown_through_the_window_of_its_middle_slice(tmp_path: Path) -> None:
    def change(number: int, dataset: Dataset) -> None:
        dataset.WindowCenter, dataset.WindowWidth = str(250 if number == 2 else 7), str(500)
        dataset.VOILUTFunction = "LINEAR_EXACT"

    found = read(stack(tmp_path, change=change), voi=True).pixels[0]
    assert np.array_equal(found, np.rint(np.clip(canonical() / 500, 0, 1) * 255))
