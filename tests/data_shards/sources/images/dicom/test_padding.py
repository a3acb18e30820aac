"""Pixel Padding Value: in no statistic and no window, whatever representation, rescaling and display there is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian

from data_shards.prepare import Preparation
from data_shards.prepare.prepared import prepare
from data_shards.reader import ShardedDataset
from data_shards.sample import Image
from data_shards.support.documents import parse
from data_shards.writing.writer import write_dataset
from tests.data_shards.sources.images.dicom.make import header, item, packaged, read, save, stack
from tests.data_shards.sources.images.make import images

BODY = np.random.default_rng(0).integers(100, 1500, (12, 12)).astype(np.int16)
OUTSIDE = np.add.outer((np.arange(12) - 5.5) ** 2, (np.arange(12) - 5.5) ** 2) > 30


def one(tmp_path: Path, padding: int, *, pixels: np.ndarray | None = None, **attributes: Any) -> Image:
    stored = BODY if pixels is None else pixels
    dataset = header(np.where(OUTSIDE, padding, stored).astype(stored.dtype), **attributes)
    return read(save(dataset, tmp_path / "a"))


def test_padding_takes_the_smallest_measured_value_and_is_marked(tmp_path: Path) -> None:
    image = one(tmp_path, -2000, PixelPaddingValue=-2000, RescaleSlope="1", RescaleIntercept="-1024")
    assert image.measured is not None and np.array_equal(image.measured, ~OUTSIDE)
    assert np.array_equal(image.pixels[0][~OUTSIDE], BODY[~OUTSIDE] - 1024)
    assert (image.pixels[0][OUTSIDE] == BODY[~OUTSIDE].min() - 1024).all()
    assert image.notes and "Pixel Padding Value" in image.notes[0]


@pytest.mark.parametrize("slope, intercept", [("-1", "0"), ("0.5", "3"), ("2", "-1000")])
def test_it_is_a_stored_value_before_slope_and_intercept(slope: str, intercept: str, tmp_path: Path) -> None:
    image = one(tmp_path, 5, PixelPaddingValue=5, RescaleSlope=slope, RescaleIntercept=intercept)
    real = BODY * float(slope) + float(intercept)
    assert np.array_equal(image.pixels[0], np.where(OUTSIDE, real[~OUTSIDE].min(), real))


@pytest.mark.parametrize("limits", [(-2000, -1900), (-1900, -2000)])
def test_a_range_is_padding_with_both_its_ends_in_either_order(limits: tuple[int, int], tmp_path: Path) -> None:
    stored = BODY.copy()
    stored[OUTSIDE] = np.linspace(-2000, -1900, OUTSIDE.sum()).round()
    stored[5, 5] = -1899
    dataset = header(stored, PixelPaddingValue=limits[0], PixelPaddingRangeLimit=limits[1])
    image = read(save(dataset, tmp_path / "a"))
    assert image.measured is not None and np.array_equal(image.measured, ~OUTSIDE) and image.pixels.min() == -1899


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize("written", ["right", "wrong", "bytes"])
@pytest.mark.parametrize("signed", [True, False])
def test_the_representation_in_which_it_is_written_does_not_matter(
    signed: bool, written: str, implicit: bool, tmp_path: Path
) -> None:
    stored = BODY.astype(np.int16 if signed else np.uint16)
    padding = -2000 if signed else 63536  # the same 16 bits
    dataset = header(np.where(OUTSIDE, padding, stored).astype(stored.dtype))
    as_signed = signed if written != "wrong" else not signed
    vr, value = ("SS", -2000) if as_signed else ("US", 63536)
    if written == "bytes":
        vr, value = "UN", np.array([63536], "<u2").tobytes()  # type: ignore[assignment]
    dataset.add_new("PixelPaddingValue", vr, value)
    path = save(dataset, tmp_path / "a", ImplicitVRLittleEndian if implicit else "1.2.840.10008.1.2.1")
    image = read(path)
    assert image.measured is not None and np.array_equal(image.measured, ~OUTSIDE)


def test_a_value_that_no_stored_bits_can_express_is_no_padding(tmp_path: Path) -> None:
    dataset = header(BODY.astype(np.uint16), PixelPaddingValue=63536, BitsStored=12, HighBit=11)
    image = read(save(dataset, tmp_path / "a"))
    assert image.measured is None and np.array_equal(image.pixels[0], BODY)


def test_an_image_of_padding_alone_is_taken_as_it_is(tmp_path: Path) -> None:
    image = read(save(header(np.zeros((4, 4), np.uint16), PixelPaddingValue=0), tmp_path / "a"))
    assert image.measured is None and (image.pixels == 0).all() and not image.notes


@pytest.mark.parametrize("empty", [0, 2, 4])
def test_slices_of_padding_alone_change_neither_type_nor_values_of_a_volume(empty: int, tmp_path: Path) -> None:
    def change(number: int, dataset: Dataset) -> None:
        pixels = np.frombuffer(dataset.PixelData, np.uint16).reshape(6, 7).copy()
        pixels[0, number] = 65535
        pixels[:] = 65535 if number == empty else pixels
        dataset.PixelData, dataset.PixelPaddingValue = pixels.tobytes(), 65535

    plain, image = read(stack(tmp_path / "plain")), read(stack(tmp_path / "padded", change=change))
    measured = np.ones((5, 6, 7), bool)
    measured[np.arange(5), 0, np.arange(5)] = measured[empty] = False
    assert image.measured is not None and np.array_equal(image.measured, measured)
    assert image.pixels.dtype == plain.pixels.dtype == np.int16
    expected = np.where(measured, plain.pixels[0], plain.pixels[0][measured].min())
    assert np.array_equal(image.pixels[0], expected)


def test_monochrome1_is_dark_where_nothing_was_measured_also_as_shown(tmp_path: Path) -> None:
    attributes: dict[str, Any] = {"PhotometricInterpretation": "MONOCHROME1", "PixelPaddingValue": 32767}
    image = one(tmp_path, 32767, **attributes)
    assert (image.pixels[0][OUTSIDE] == image.pixels[0][~OUTSIDE].min()).all()
    assert np.array_equal(image.pixels[0][~OUTSIDE], -1 - BODY[~OUTSIDE].astype(int))
    shown = read(tmp_path / "a", voi=True)
    low, high = BODY[~OUTSIDE].min(), BODY[~OUTSIDE].max()
    expected = 255 - np.rint((BODY.astype(float) - low) / (high - low) * 255)
    assert np.array_equal(shown.pixels[0][~OUTSIDE], expected[~OUTSIDE]) and (shown.pixels[0][OUTSIDE] == 0).all()


def test_the_display_window_without_one_in_the_header_spans_what_was_measured(tmp_path: Path) -> None:
    one(tmp_path, -2000, PixelPaddingValue=-2000)
    shown = read(tmp_path / "a", voi=True).pixels[0]
    low, high = BODY[~OUTSIDE].min(), BODY[~OUTSIDE].max()
    expected = np.rint((BODY.astype(float) - low) / (high - low) * 255)
    assert np.array_equal(shown[~OUTSIDE], expected[~OUTSIDE])


def test_frames_of_enhanced_files_and_modality_tables_and_palettes_have_padding_too(tmp_path: Path) -> None:
    from tests.data_shards.sources.images.dicom.test_enhanced import PLANES, enhanced

    image = read(save(_with(enhanced([2, 0, 1]), PixelPaddingValue=int(PLANES[1, 2, 3])), tmp_path / "enhanced"))
    assert image.measured is not None and np.argwhere(~image.measured).tolist() == [[1, 2, 3]]
    table = item(LUTDescriptor=[3, 0, 16], LUTData=[900, 10, 20], ModalityLUTType="US")
    table[0]["LUTDescriptor"].VR = table[0]["LUTData"].VR = "US"
    dataset = header(np.array([[0, 1], [2, 1]], np.uint8), ModalityLUTSequence=table, PixelPaddingValue=0)
    found = read(save(dataset, tmp_path / "table"))
    assert found.pixels.tolist() == [[[10, 10], [20, 10]]] and found.measured is not None
    colours = {}
    for colour, entries in zip(("Red", "Green", "Blue"), ((9, 40, 50), (8, 60, 70), (7, 80, 90)), strict=True):
        colours[f"{colour}PaletteColorLookupTableDescriptor"] = [3, 0, 8]
        colours[f"{colour}PaletteColorLookupTableData"] = bytes(entries) + b"\0"
    pixels = np.array([[0, 1], [2, 1]], np.uint8)
    dataset = header(pixels, PhotometricInterpretation="PALETTE COLOR", PixelPaddingValue=0, **colours)
    found = read(save(dataset, tmp_path / "palette"))
    assert found.measured is not None and found.measured.tolist() == [[False, True], [True, True]]
    assert found.pixels[:, 0, 0].tolist() == [40, 40, 40] and found.pixels[:, 1, 0].tolist() == [50, 70, 90]


def _with(dataset: Dataset, **attributes: Any) -> Dataset:
    for name, value in attributes.items():
        setattr(dataset, name, value)
    return dataset


@pytest.mark.parametrize("value", [np.nan, -5.0])
def test_float_pixels_have_a_padding_value_of_their_own(value: float, tmp_path: Path) -> None:
    pixels = np.where(OUTSIDE, value, BODY / 7).astype(np.float32)
    dataset = header(np.zeros((12, 12), np.uint8))
    del dataset.PixelData, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation
    dataset.BitsAllocated, dataset.FloatPixelData, dataset.FloatPixelPaddingValue = 32, pixels.tobytes(), value
    image = read(save(dataset, tmp_path / "a"))
    assert image.measured is not None and np.array_equal(image.measured, ~OUTSIDE)
    assert (image.pixels[0][OUTSIDE] == image.pixels[0][~OUTSIDE].min()).all()


def test_statistics_of_the_manifest_and_percentiles_are_those_of_what_was_measured(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    one(tmp_path / "in", -2000, PixelPaddingValue=-2000)
    shares = {"train": 1, "val": 0, "test": 0}
    manifest = write_dataset(images(tmp_path / "in", shares=shares), tmp_path / "out")
    layout = manifest.splits["train"].images["image"]
    body = BODY[~OUTSIDE].astype(float)
    assert (layout.mean, layout.std) == (pytest.approx(body.mean()), pytest.approx(body.std()))
    assert (layout.min, layout.max) == (body.min(), body.max())
    stored = ShardedDataset(tmp_path / "out", "train").read(np.array([0])).images[0][0]
    assert np.array_equal(stored, np.where(OUTSIDE, body.min(), BODY))


@pytest.mark.parametrize(
    "options", [{"size": 12}, {"size": 20}, {"size": 9, "fit": "resize"}, {"spacing_mm": 0.7}, {"crop": "foreground"}]
)
def test_windows_stay_those_of_the_body_through_all_ways_of_preparing(options: dict, tmp_path: Path) -> None:
    bright = {"PixelPaddingValue": -2000, "PixelSpacing": [1, 1]}
    padded = one(tmp_path, -2000, **bright)
    preparation = parse(Preparation, options | {"intensity": {"percentile": [0.0, 100.0]}}, "test")
    grey = prepare({"image": padded}, preparation)["image"]
    assert grey.measured is not None and grey.measured.shape == grey.pixels.shape[1:]
    # What was measured spans all greys, but where the image is resized after its ends were found.
    assert (grey.values.min(), grey.values.max()) == (0, 255) or options.get("fit") == "resize"
    assert (grey.pixels[:, ~grey.measured] <= np.percentile(grey.values, 90)).all()


def test_the_padding_of_a_real_file_is_what_its_header_says() -> None:
    dataset = pydicom.dcmread(packaged("693_J2KI.dcm"))
    stored, padding = dataset.pixel_array, dataset.PixelPaddingValue
    image = read(packaged("693_J2KI.dcm"))
    assert image.measured is not None and np.array_equal(image.measured, stored != padding)
    assert (~image.measured).sum() > 0 and image.pixels.min() == stored[stored != padding].min() - 1024
