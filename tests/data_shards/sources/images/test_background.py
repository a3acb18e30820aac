"""NaN backgrounds: refused, or set aside and left out of statistics, windows and thresholds."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import tifffile

from data_shards.format.manifest import read_manifest
from data_shards.prepare import Intensity, Preparation
from data_shards.prepare.prepared import prepare
from data_shards.sample import Image
from data_shards.sources.images.background import set_aside
from data_shards.support.errors import DataError
from data_shards.writing.writer import write_dataset
from tests.data_shards.sources.images.make import SPACING, images, nifti, reference, stored_as

VOLUME = reference(np.float32)
OUTSIDE = np.zeros(VOLUME.shape, bool)
OUTSIDE[:, :, :2] = True


def holed(root: Path, value: float = np.nan) -> Path:
    data, affine = stored_as(np.where(OUTSIDE, np.float32(value), VOLUME), "RAS")
    nifti(root / "v.nii", data, affine)
    return root


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_such_voxels_take_the_smallest_value_and_are_marked(tmp_path: Path, value: float):
    image = images(holed(tmp_path, value), not_finite="background").sample(0).image
    np.testing.assert_array_equal(image.pixels[0], np.where(OUTSIDE, VOLUME[~OUTSIDE].min(), VOLUME))
    assert image.measured is not None and (image.measured == ~OUTSIDE).all()
    assert "background" in image.notes[0]


def test_the_default_refuses_and_names_the_option(tmp_path: Path):
    with pytest.raises(DataError, match="not finite; not_finite: background"):
        images(holed(tmp_path)).sample(0)


def test_every_format_has_the_rule(tmp_path: Path):
    plane = np.array([[1, np.nan], [3, 4]], np.float32)
    np.save(tmp_path / "a.npy", plane)
    tifffile.imwrite(tmp_path / "b.tif", plane, photometric="minisblack")
    for sample in images(tmp_path, not_finite="background"):
        np.testing.assert_array_equal(sample.image.pixels[0], [[1, 1], [3, 4]])
        np.testing.assert_array_equal(sample.image.measured, [[True, False], [True, True]])


def test_nothing_but_nan_is_refused(tmp_path: Path):
    np.save(tmp_path / "a.npy", np.full((2, 2), np.nan))
    with pytest.raises(DataError, match="no value that is finite"):
        images(tmp_path, not_finite="background").sample(0)


def test_a_value_that_overflows_is_no_background(tmp_path: Path):
    np.save(tmp_path / "a.npy", np.array([[1.0, 1e300], [np.nan, 2.0]]))
    with pytest.raises(DataError, match="not finite in float32"):
        images(tmp_path, not_finite="background").sample(0)


def test_statistics_are_of_what_was_measured_and_the_owner_is_told(tmp_path: Path):
    root = tmp_path / "in"
    root.mkdir()
    write_dataset(
        images(holed(root), not_finite="background", shares={"train": 1, "val": 0, "test": 0}), tmp_path / "o"
    )
    layout = read_manifest(tmp_path / "o").splits["train"].images["image"]
    inside = VOLUME[~OUTSIDE].astype(np.float64)
    assert (layout.min, layout.max) == (inside.min(), inside.max())
    assert layout.mean == pytest.approx(inside.mean(), rel=1e-12) and layout.std == pytest.approx(
        inside.std(), rel=1e-12
    )
    with open(tmp_path / "o" / "warnings.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["items"], row["first"]) == ("1", "file 1") and "background" in row["warning"]


def test_percentiles_and_the_foreground_are_of_what_was_measured():
    pixels = np.full((1, 4, 10, 10), 100.0, np.float32)
    pixels[0, :, :, 5:] = np.linspace(0, 1, 200).reshape(4, 10, 5)
    image = set_aside(Image(pixels, spacing_mm=(1, 1, 1)), pixels[0] == 100)

    scaled = prepare({"image": image}, Preparation(intensity=Intensity(percentile=(0, 100))))["image"]
    expected = np.rint(np.linspace(0, 1, 200) * 255).reshape(4, 10, 5)
    np.testing.assert_array_equal(scaled.pixels[0, :, :, 5:], expected)
    assert (scaled.pixels[0, :, :, :5] == 0).all()
    cropped = prepare({"image": image}, Preparation(crop="foreground", threshold=-1.0, margin=0))["image"]
    assert cropped.pixels.shape == (1, 4, 10, 5) and cropped.measured is not None and cropped.measured.all()


@pytest.mark.parametrize(
    "options", [{"spacing_mm": 0.7}, {"size": 6}, {"size": 14}, {"size": 7, "fit": "resize"}, {"crop": "foreground"}]
)
def test_what_was_measured_follows_every_step(options: dict):
    image = set_aside(Image(VOLUME[None], spacing_mm=SPACING), OUTSIDE)
    result = prepare({"image": image}, Preparation(**options))["image"]
    assert result.measured is not None and result.measured.shape == result.pixels.shape[1:]
    assert 0 < result.measured.sum() < result.measured.size
