"""Headers that rounding or a careless writer has broken, and bytes behind the voxels."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from data_shards.sources.images.nifti import read_nifti
from data_shards.support.errors import DataError
from tests.data_shards.sources.images.make import SPACING, nifti, patched, reference, stored_as

VOLUME = reference()


def by_quaternion(path: Path, vector: tuple[float, float, float], **fields: object) -> Path:
    """The volume as ``i,j,k``, placed by a quaternion alone."""
    nifti(path, VOLUME.transpose(2, 1, 0), None)
    names = dict(zip(("quatern_b", "quatern_c", "quatern_d"), vector, strict=True))
    usual = {"qform_code": 1, "sform_code": 0, "pixdim": [1, 0.5, 2, 3, 0, 0, 0, 0]}
    return patched(path, **usual | names | fields)


@pytest.mark.parametrize("factor", [1.0, 1.0000002, 1.0001, 1.0009])
def test_a_quaternion_longer_than_1_by_rounding_is_half_a_turn(tmp_path: Path, factor: float):
    side = np.sqrt(0.5) * factor
    image = read_nifti(by_quaternion(tmp_path / "v.nii", (side, side, 0.0)))
    # Half a turn about (1,1,0): i runs to anterior, j to right, k to inferior.
    np.testing.assert_array_equal(image.pixels[0], VOLUME.transpose(0, 2, 1)[::-1, ::-1, ::-1])
    np.testing.assert_allclose(image.spacing_mm, (3.0, 0.5, 2.0), rtol=1e-6)


def test_a_small_rotation_is_not_rounded_away(tmp_path: Path):
    """A quaternion whose first part is small and not zero: 2 degrees short of half a turn stay 2 degrees."""
    half = np.deg2rad(89.0)
    image = read_nifti(by_quaternion(tmp_path / "v.nii", (0.0, 0.0, float(np.sin(half)))))
    np.testing.assert_array_equal(image.pixels[0], VOLUME)  # left, posterior, superior


def test_a_quaternion_that_is_no_rotation_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match="unusable header"):
        read_nifti(by_quaternion(tmp_path / "v.nii", (0.8, 0.8, 0.0)))


@pytest.mark.parametrize("qfac", [0.0, 5.0, np.nan])
def test_a_sign_of_the_third_axis_that_says_nothing_is_plus(tmp_path: Path, qfac: float):
    path = by_quaternion(tmp_path / "v.nii", (0.0, 0.0, 1.0), pixdim=[qfac, 0.5, 2, 3, 0, 0, 0, 0])
    np.testing.assert_array_equal(read_nifti(path).pixels[0], VOLUME)


def test_a_qform_without_distances_gives_directions_and_no_spacing(tmp_path: Path):
    path = by_quaternion(tmp_path / "v.nii", (0.0, 0.0, 0.0), pixdim=[1, 0, 0, 0, 0, 0, 0, 0])
    image = read_nifti(path)
    np.testing.assert_array_equal(image.pixels[0], VOLUME[:, ::-1, ::-1])  # right, anterior, superior
    assert image.spacing_mm == ()


def test_negative_distances_lose_their_sign_and_it_is_told(tmp_path: Path):
    image = read_nifti(by_quaternion(tmp_path / "v.nii", (0.0, 0.0, 1.0), pixdim=[1, -0.5, 2, 3, 0, 0, 0, 0]))
    np.testing.assert_array_equal(image.pixels[0], VOLUME)
    np.testing.assert_allclose(image.spacing_mm, (3.0, 2.0, 0.5))
    assert "without their sign" in image.notes[0]


ZEROS = {"srow_x": [0] * 4, "srow_y": [0] * 4, "srow_z": [0] * 4}


def test_an_sform_of_zeros_says_nothing(tmp_path: Path):
    data, affine = stored_as(VOLUME, "RPS")
    path = nifti(tmp_path / "v.nii", data, affine, by="qform", sform_code=1, **ZEROS)
    np.testing.assert_array_equal(read_nifti(path).pixels[0], VOLUME)
    np.testing.assert_allclose(read_nifti(path).spacing_mm, SPACING, rtol=1e-6)
    path = nifti(tmp_path / "w.nii", VOLUME.transpose(2, 1, 0), None, sform_code=1, **ZEROS)
    np.testing.assert_array_equal(read_nifti(patched(path, pixdim=[1, 0.5, 2, 3, 0, 0, 0, 0])).pixels[0], VOLUME)


def test_a_broken_sform_gives_way_to_a_sound_qform_and_it_is_told(tmp_path: Path):
    data, affine = stored_as(VOLUME, "RPS")
    path = nifti(tmp_path / "v.nii", data, affine, by="qform", sform_code=1, srow_x=[1, 0, 0, 0], srow_y=[1, 0, 0, 0])
    image = read_nifti(path)
    np.testing.assert_array_equal(image.pixels[0], VOLUME)
    assert "the qform counts" in image.notes[0]


@pytest.mark.parametrize("other, told", [("RPS", False), ("LPS", True)])
def test_sform_and_qform_that_disagree_are_told(tmp_path: Path, other: str, told: bool):
    data, affine = stored_as(VOLUME, "RPS")
    path = nifti(tmp_path / "v.nii", data, affine)
    turned = stored_as(VOLUME, other)[1]
    turned[:3, 3] += 30  # where the volume lies as a whole may differ
    import nibabel

    image = nibabel.load(path)
    again = nibabel.Nifti1Image(np.asarray(image.dataobj), None, image.header)
    again.set_sform(affine, code=1)
    again.set_qform(turned, code=1)
    nibabel.save(again, tmp_path / "w.nii")
    found = read_nifti(tmp_path / "w.nii")
    np.testing.assert_array_equal(found.pixels[0], VOLUME)
    assert any("the sform counts" in note for note in found.notes) == told


@pytest.mark.parametrize("size", [1e-7, 1e-4, 1e-2])
def test_an_affine_that_is_not_quite_at_right_angles_is_read(tmp_path: Path, size: float):
    data, affine = stored_as(VOLUME, "PIR")
    affine[:3, :3] += np.random.default_rng(0).normal(size=(3, 3)) * size
    image = read_nifti(nifti(tmp_path / "v.nii", data, affine))
    np.testing.assert_array_equal(image.pixels[0], VOLUME)
    np.testing.assert_allclose(image.spacing_mm, SPACING, rtol=20 * size + 1e-6)


def test_a_single_plane_needs_no_step_to_the_next(tmp_path: Path):
    data, affine = stored_as(VOLUME, "LPS")
    path = nifti(tmp_path / "v.nii", data[:, :, :1], affine)
    content = bytearray(path.read_bytes())
    for row in range(3):  # srow_x, srow_y, srow_z: the third column
        content[280 + 16 * row + 8 : 280 + 16 * row + 12] = bytes(4)
    path.write_bytes(content)
    image = read_nifti(path)
    np.testing.assert_array_equal(image.pixels[0], VOLUME[0])
    np.testing.assert_allclose(image.spacing_mm, SPACING[1:])


@pytest.mark.parametrize("count", [1, 512, 70_000])
@pytest.mark.parametrize("where", ["plain", "inside gzip", "after gzip"])
def test_bytes_behind_the_voxels_are_passed_over_and_told(tmp_path: Path, count: int, where: str):
    data, affine = stored_as(VOLUME, "LPS")
    content = nifti(tmp_path / "v.nii", data, affine).read_bytes()
    if where == "plain":
        content += bytes(count)
    else:
        content = (
            gzip.compress(content + bytes(count)) if where == "inside gzip" else gzip.compress(content) + bytes(count)
        )
    (tmp_path / "v.nii").write_bytes(content)
    image = read_nifti(tmp_path / "v.nii")
    np.testing.assert_array_equal(image.pixels[0], VOLUME)
    if where != "after gzip":  # which the format allows: RFC 1952 readers pass over zeros
        assert "bytes follow" in image.notes[0]


def test_a_checksum_is_compared_also_when_bytes_follow(tmp_path: Path):
    data, affine = stored_as(VOLUME, "LPS")
    content = bytearray(gzip.compress(nifti(tmp_path / "v.nii", data, affine).read_bytes() + bytes(512)))
    content[-6] ^= 1
    (tmp_path / "v.nii").write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        read_nifti(tmp_path / "v.nii")
