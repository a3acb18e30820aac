"""One volume, however its file stores it, comes out with the same axes."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from data_shards.sources.images.nifti import read_nifti
from data_shards.sources.images.orientation import CANONICAL, check_spacing, to_canonical
from data_shards.support.errors import DataError
from tests.data_shards.sources.images.make import SPACING, all_orientations, nifti, reference, stored_as


def test_there_are_48_orientations_and_none_twice():
    assert len(set(all_orientations())) == 48


@pytest.mark.parametrize("by", ["sform", "qform"])
@pytest.mark.parametrize("codes", all_orientations())
def test_every_orientation_gives_the_identical_array_and_spacing(tmp_path: Path, codes: str, by: str):
    data, affine = stored_as(reference(), codes)
    path = nifti(tmp_path / "v.nii", data, affine, by=by)
    assert "".join(nibabel.aff2axcodes(nibabel.load(path).affine)) == codes  # an independent reader agrees
    image = read_nifti(path)
    np.testing.assert_array_equal(image.pixels, reference()[None])
    assert image.pixels.dtype == np.int16
    np.testing.assert_allclose(image.spacing_mm, SPACING, rtol=1e-6)


@pytest.mark.parametrize("codes", all_orientations()[::5])
def test_the_volume_is_that_of_nibabel_turned_to_the_same_axes(tmp_path: Path, codes: str):
    data, affine = stored_as(reference(), codes)
    loaded = nibabel.load(nifti(tmp_path / "v.nii", data, affine))
    change = nibabel.orientations.ornt_transform(
        nibabel.io_orientation(loaded.affine), nibabel.orientations.axcodes2ornt(("L", "P", "S"))
    )
    turned = loaded.as_reoriented(change)
    np.testing.assert_array_equal(read_nifti(tmp_path / "v.nii").pixels[0], np.asarray(turned.dataobj).T)
    np.testing.assert_allclose(read_nifti(tmp_path / "v.nii").spacing_mm, turned.header.get_zooms()[::-1], rtol=1e-6)


def test_the_sform_counts_before_the_qform(tmp_path: Path):
    data, affine = stored_as(reference(), "RAS")
    image = nibabel.Nifti1Image(data, affine)
    image.set_sform(affine, code=1)
    image.set_qform(np.diag([-0.5, -2.0, 3.0, 1.0]), code=1)
    nibabel.save(image, tmp_path / "v.nii")
    np.testing.assert_array_equal(read_nifti(tmp_path / "v.nii").pixels[0], reference())


@pytest.mark.parametrize("degrees", [5, 20, 40, -40])
def test_an_oblique_volume_is_permuted_and_never_resampled(tmp_path: Path, degrees: float):
    data, affine = stored_as(reference(), "LPS")
    angle = np.deg2rad(degrees)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    image = read_nifti(nifti(tmp_path / "v.nii", data, turn @ affine))
    np.testing.assert_array_equal(image.pixels[0], reference())
    np.testing.assert_allclose(image.spacing_mm, SPACING, rtol=1e-6)


def test_past_45_degrees_the_nearer_axis_wins(tmp_path: Path):
    data, affine = stored_as(reference(), "LPS")
    angle = np.deg2rad(50)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    image = read_nifti(nifti(tmp_path / "v.nii", data, turn @ affine))
    assert image.pixels.shape == (1, 3, 5, 4)
    np.testing.assert_allclose(image.spacing_mm, (3.0, 0.5, 2.0), rtol=1e-6)


def test_without_codes_the_axes_stay_as_they_are_stored(tmp_path: Path):
    data = reference()
    path = nifti(tmp_path / "v.nii", data, None, pixdim=[1, 0.5, 2, 3, 0, 0, 0, 0])
    image = read_nifti(path)
    np.testing.assert_array_equal(image.pixels[0], data.transpose(2, 1, 0))
    assert image.spacing_mm == (3.0, 2.0, 0.5)


@pytest.mark.parametrize("step", [0.0, np.nan, np.inf])
def test_without_codes_unusable_zooms_mean_an_unknown_spacing(tmp_path: Path, step: float):
    path = nifti(tmp_path / "v.nii", reference(), None, pixdim=[1, 1, step, 1, 0, 0, 0, 0])
    assert read_nifti(path).spacing_mm == ()


@pytest.mark.parametrize("unit, factor", [(1, 1000.0), (2, 1.0), (3, 0.001), (0, 1.0), (10, 1.0)])
def test_distances_become_millimetres(tmp_path: Path, unit: int, factor: float):
    data, affine = stored_as(reference(), "LPS")
    path = nifti(tmp_path / "v.nii", data, affine, xyzt_units=unit)
    np.testing.assert_allclose(read_nifti(path).spacing_mm, np.array(SPACING) * factor, rtol=1e-6)


def test_an_unknown_unit_is_refused(tmp_path: Path):
    data, affine = stored_as(reference(), "LPS")
    with pytest.raises(DataError, match="unknown unit"):
        read_nifti(nifti(tmp_path / "v.nii", data, affine, xyzt_units=5))


@pytest.mark.parametrize("codes", ["LPS", "SPL", "PSR", "AIL"])
def test_a_single_slice_is_a_plane_with_the_spacing_of_its_own_axes(tmp_path: Path, codes: str):
    data, affine = stored_as(reference(), codes)
    path = nifti(tmp_path / "v.nii", data[:, :, :1], affine)
    image = read_nifti(path)
    assert image.pixels.ndim == 3 and len(image.spacing_mm) == 2
    whole = read_nifti(nifti(tmp_path / "w.nii", data, affine))
    axis = next(axis for axis, pair in enumerate(("SI", "PA", "LR")) if codes[2] in pair)
    ends = [whole.pixels.take(place, axis=1 + axis) for place in (0, -1)]
    assert any(np.array_equal(image.pixels, end) for end in ends)
    assert image.spacing_mm == tuple(step for other, step in enumerate(whole.spacing_mm) if other != axis)


@pytest.mark.parametrize(
    "column", [(np.nan, 0, 0), (np.inf, 0, 0), (0, 0, 0), (1e9, 0, 0), (1e-9, 0, 0), (0, 2.0, 0), (0, 2.0, 1e-6)]
)
def test_an_affine_that_spans_no_space_is_refused(column: tuple[float, float, float]):
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    affine[:3, 0] = column
    with pytest.raises(DataError, match="unusable"):
        to_canonical(reference(), affine)


def test_a_damaged_sform_in_a_file_is_refused_not_replaced(tmp_path: Path):
    data, affine = stored_as(reference(), "LPS")
    path = nifti(tmp_path / "v.nii", data, affine, srow_x=[np.nan, 0, 0, 0])
    with pytest.raises(DataError, match="unusable"):
        read_nifti(path)


def test_turning_makes_no_copy_and_says_where_axes_came_from():
    data, affine = stored_as(reference(), "PIR")
    turned, spacing, source = to_canonical(data, affine)
    assert CANONICAL == ("S", "P", "L") and source == (1, 0, 2) and spacing == SPACING
    assert np.shares_memory(turned, data)


def test_further_axes_stay_where_they_are():
    data, affine = stored_as(reference(), "RAI")
    turned, _, _ = to_canonical(np.stack([data, -data], axis=-1), affine)
    np.testing.assert_array_equal(turned, np.stack([reference(), -reference()], axis=-1))


@pytest.mark.parametrize("spacing", [(1e-7, 1, 1), (1, 2e4, 1), (1, 1, float("nan")), (-1, 1, 1)])
def test_distances_that_no_image_has_are_refused(spacing: tuple[float, ...]):
    with pytest.raises(DataError, match="spacing of the volume is unusable"):
        check_spacing(spacing)
