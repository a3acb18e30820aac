from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from data_shards.sample import Image
from data_shards.sources.images.dicom import find_series, read_series
from data_shards.support.errors import DataError
from tests.data_shards.sources.images.dicom.make import SPACING, anatomy, canonical, header, read, save, stack
from tests.data_shards.sources.images.make import images, nifti, table

AXES = [np.eye(3)[axis] * sign for axis in range(3) for sign in (1, -1)]
DIRECTIONS = [(row, column) for row, column in itertools.product(AXES, AXES) if not row @ column]


def moved(dataset: Dataset, step: Any) -> None:
    dataset.ImagePositionPatient = [a + b for a, b in zip(dataset.ImagePositionPatient, step, strict=True)]


def in_the_patient(image: Image) -> np.ndarray:
    """Where its voxels ``D,H,W`` lie, ``D,H,W,3``, in mm to the left, the back and the head."""
    assert image.affine is not None
    places = np.stack(np.meshgrid(*map(np.arange, image.pixels.shape[1:]), indexing="ij"), axis=-1)
    return (places @ image.affine[:3, :3].T + image.affine[:3, 3]) * (-1, -1, 1)


@pytest.mark.parametrize("number", range(len(DIRECTIONS)))
def test_every_way_to_lay_slices_gives_the_same_array_with_axes_superior_posterior_left(
    number: int, tmp_path: Path
) -> None:
    assert len(DIRECTIONS) == 24
    paths = stack(tmp_path, *DIRECTIONS[number])
    random.Random(number).shuffle(paths)
    image = read(paths)
    assert image.spacing_mm == pytest.approx(SPACING)
    assert np.array_equal(image.pixels[0], canonical()) and image.pixels.flags.c_contiguous
    assert np.array_equal(anatomy(in_the_patient(image)), image.pixels[0])


def test_instance_numbers_and_file_names_do_not_order_slices_of_known_place(tmp_path: Path) -> None:
    shuffled = random.Random(1).sample(range(5), 5)
    paths = stack(tmp_path, change=lambda number, dataset: setattr(dataset, "InstanceNumber", shuffled[number]))
    assert np.array_equal(read(paths).pixels[0], canonical())
    renamed = [path.rename(tmp_path / f"{shuffled[number]}.x") for number, path in enumerate(paths)]
    assert np.array_equal(read(sorted(renamed)).pixels[0], canonical())


def test_oblique_volume_is_turned_to_its_closest_axes_and_not_resampled(tmp_path: Path) -> None:
    angle = np.deg2rad(20)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])

    def tilt(_: int, dataset: Dataset) -> None:
        dataset.ImagePositionPatient = [f"{value:.6f}" for value in turn @ np.array(dataset.ImagePositionPatient)]
        directions = np.reshape(dataset.ImageOrientationPatient, (2, 3)) @ turn.T
        dataset.ImageOrientationPatient = [f"{value:.9f}" for value in directions.ravel()]

    image = read(stack(tmp_path, (0, -1, 0), (0, 0, -1), change=tilt))
    assert image.spacing_mm == pytest.approx(SPACING, rel=1e-5)
    assert np.array_equal(image.pixels[0], canonical())
    assert np.array_equal(anatomy(in_the_patient(image) @ turn), image.pixels[0])


@pytest.mark.parametrize("row, column", [((1, 0, 0), (0, 1, 0)), ((0, 1, 0), (0, 0, -1))])
def test_a_missing_slice_is_named_with_its_gap(row: tuple, column: tuple, tmp_path: Path) -> None:
    paths = stack(tmp_path, row, column)
    series, _ = find_series(paths[:2] + paths[3:])
    gap = float(abs(np.cross(row, column)) @ np.array(SPACING[::-1]))
    said = rf"slices \d and \d of {len(paths) - 1} lie {2 * gap:.3f} mm apart, .* {gap:.3f}: a slice is missing"
    with pytest.raises(DataError, match=said):
        read_series(series[0])


def test_tilted_gantry_gives_the_distance_between_the_planes_and_irregular_shifts_are_refused(tmp_path: Path) -> None:
    angle = np.deg2rad(20)

    def tilt(number: int, dataset: Dataset) -> None:
        dataset.ImageOrientationPatient = [1, 0, 0, 0, f"{np.cos(angle):.9f}", f"{np.sin(angle):.9f}"]

    image = read(stack(tmp_path / "tilted", change=tilt))
    assert image.spacing_mm == pytest.approx((3.0 * np.cos(angle), 1.5, 0.75))
    assert np.array_equal(image.pixels[0], canonical())
    series, _ = find_series(stack(tmp_path / "b", change=lambda number, d: moved(d, (4.0 * (number == 3), 0, 0))))
    with pytest.raises(DataError, match=r"slice 4 of 5 is shifted by 4.000 mm"):
        read_series(series[0])


def test_row_spacing_comes_first_and_imager_spacing_counts_for_radiographs_alone(tmp_path: Path) -> None:
    (single,) = stack(tmp_path / "a")[:1]
    assert read(single).spacing_mm == SPACING[1:] and read(single).pixels.shape == (1, 6, 7)

    def imager(_: int, dataset: Dataset) -> None:
        del dataset.PixelSpacing, dataset.ImagePositionPatient
        dataset.ImagerPixelSpacing = [0.2, 0.1]

    for modality, expected in (("DX", (0.2, 0.1)), ("MG", (0.2, 0.1)), ("MR", ())):
        paths = stack(tmp_path / modality, change=imager, Modality=modality)
        assert read(paths[0]).spacing_mm == expected


@pytest.mark.parametrize("attribute, spacing", [("SliceLocation", 2.5), ("InstanceNumber", 4.0)])
def test_without_positions_slices_are_ordered_by_location_or_number_and_called_unoriented(
    attribute: str, spacing: float, tmp_path: Path
) -> None:
    def forget(number: int, dataset: Dataset) -> None:
        del dataset.ImagePositionPatient, dataset.InstanceNumber
        setattr(dataset, attribute, 2.5 * number if attribute == "SliceLocation" else number + 10)

    paths = stack(tmp_path, (-1, 0, 0), change=forget, SliceThickness=3.5, SpacingBetweenSlices=4.0)
    (series,), unused = find_series(paths[::-1])
    image = read_series(series)
    assert not unused and not series.oriented and image.spacing_mm == (spacing, 1.5, 0.75)
    # As stored: slices from the head down, as these directions lay them, and columns to the right.
    assert np.array_equal(image.pixels[0], canonical()[::-1, :, ::-1])


def test_volumes_of_known_place_are_called_oriented(tmp_path: Path) -> None:
    (series,), _ = find_series(stack(tmp_path))
    assert series.oriented


def test_directions_that_are_no_directions_are_refused(tmp_path: Path) -> None:
    for number, wrong in enumerate(([1, 0, 0, 1, 0, 0], [1, 0, 0, 0, 2, 0], [1, 0, 0, 0, 1])):
        paths = stack(tmp_path / str(number), ImageOrientationPatient=wrong)
        series, unused = find_series(paths)
        assert not series and all("ImageOrientationPatient" in reason for _, reason, _ in unused)


def test_an_orientation_of_zeros_says_nothing(tmp_path: Path) -> None:
    pixels = np.random.default_rng(6).integers(0, 4000, (6, 7)).astype(np.uint16)
    dataset = header(pixels, Modality="DX", ImageOrientationPatient=[0] * 6, PixelSpacing=[0.2, 0.1])
    image = read([save(dataset, tmp_path / "a.dcm")])
    assert np.array_equal(image.pixels[0], pixels) and image.spacing_mm == (0.2, 0.1)


@pytest.mark.parametrize("shift, taken", [(0.0, True), (5.0, False)])
def test_a_mask_in_nifti_is_compared_with_the_places_of_the_slices(tmp_path: Path, shift: float, taken: bool) -> None:
    """Its affine is worked out from the definition of both formats, whatever way the slices lie."""
    for number, (row, column) in enumerate([DIRECTIONS[0], DIRECTIONS[7], DIRECTIONS[18]]):
        root = tmp_path / str(number)
        paths = stack(root / "scan", row, column)
        image = read(paths)
        first, last = (pydicom.dcmread(path) for path in (paths[0], paths[-1]))
        ends = [np.array(each.ImagePositionPatient, float) for each in (first, last)]
        down, right = (float(step) for step in first.PixelSpacing)
        columns = [np.array(row) * right, np.array(column) * down, (ends[1] - ends[0]) / (len(paths) - 1)]
        affine = np.eye(4)
        affine[:3] = np.stack([*columns, ends[0]], axis=1) * np.array([[-1], [-1], [1]])
        stored = np.stack([pydicom.dcmread(path).pixel_array.T for path in paths], axis=-1)
        affine[:3, 3] += shift
        nifti(root / "seg.nii", (stored % 2).astype(np.uint8), affine)
        listed = table(root / "t.csv", [("path", "study", "image"), ("scan", "s", "image"), ("seg.nii", "s", "mask")])
        source = images(root, table=listed)
        if taken:
            assert np.array_equal(source.sample(0).images["mask"].pixels, image.pixels % 2)
        else:
            with pytest.raises(DataError, match="mask: header and image disagree"):
                source.sample(0)
