"""Real NIfTI files against nibabel, which reads and turns them on its own; and one scan in two formats."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest

from data_shards.sample import Image
from data_shards.sources.images.dicom import find_series, read_series
from data_shards.sources.images.nifti import frame_count, read_nifti
from data_shards.support.errors import DataError
from tests.data_shards.sources.images.dicom.make import stack
from tests.data_shards.sources.images.make import nifti

PACKAGED = Path(nibabel.__file__).parent / "tests" / "data"
NAMES = ("anatomical.nii", "example4d.nii.gz", "example_nifti2.nii.gz", "functional.nii", "standard.nii.gz")
RESAMPLED = "resampled_anat_moved.nii"


def agrees_with_nibabel(path: Path, frame: int = 0) -> Image:
    """Read the file both ways and compare."""
    image = read_nifti(path, frame=frame, frames="all")
    loaded = nibabel.load(path)
    if loaded.ndim == 4:
        loaded = loaded.slicer[..., frame]
    ends = nibabel.orientations.axcodes2ornt(("L", "P", "S"))
    turned = loaded.as_reoriented(nibabel.orientations.ornt_transform(nibabel.io_orientation(loaded.affine), ends))
    np.testing.assert_allclose(image.pixels[0], turned.get_fdata().T, rtol=1e-6)
    np.testing.assert_allclose(image.spacing_mm, nibabel.affines.voxel_sizes(turned.affine)[::-1], rtol=1e-5)
    return image


@pytest.mark.parametrize("name", [*NAMES, "reoriented_anat_moved.nii"])
def test_the_files_that_come_with_nibabel(name: str):
    path = PACKAGED / name
    if not path.is_file():
        pytest.skip(f"this nibabel does not bring {name}")
    for frame in {0, frame_count(path) - 1}:
        agrees_with_nibabel(path, frame)


def test_a_resampled_volume_with_nan_outside_of_the_body_is_refused():
    if not (PACKAGED / RESAMPLED).is_file():
        pytest.skip(f"this nibabel does not bring {RESAMPLED}")
    assert np.isnan(nibabel.load(PACKAGED / RESAMPLED).get_fdata()).any()
    with pytest.raises(DataError, match="not finite"):
        read_nifti(PACKAGED / RESAMPLED)


@pytest.mark.parametrize("name", ["nifti1.hdr", "analyze.hdr", "minc2_4d.mnc", "row_major.dconn.nii"])
def test_other_formats_that_come_with_nibabel_are_refused(name: str):
    if not (PACKAGED / name).is_file():
        pytest.skip(f"this nibabel does not bring {name}")
    with pytest.raises(DataError):
        read_nifti(PACKAGED / name)


def test_the_shared_volumes_of_different_scanners(shared_data: Path):
    paths = sorted((shared_data / "nifti").glob("*.nii*"))
    assert len(paths) >= 5
    for path in paths:
        agrees_with_nibabel(path, frame_count(path) - 1)


def test_shared_brain_crops_and_their_masks_lie_on_one_grid(shared_data: Path):
    paths = sorted((shared_data / "hippocampus" / "images").glob("*.nii.gz"))[::20]
    assert len(paths) >= 10
    for path in paths:
        image = agrees_with_nibabel(path)
        mask = agrees_with_nibabel(shared_data / "hippocampus" / "labels" / path.name)
        assert image.pixels.shape == mask.pixels.shape and set(np.unique(mask.pixels)) <= {0, 1, 2}


def as_nifti(paths: list[Path], target: Path) -> Path:
    """The slices as a NIfTI file, by the equation of DICOM PS3.3 C.7.6.2.1.1 and the axes of NIfTI."""
    slices = [pydicom.dcmread(path) for path in paths]
    x, y = np.split(np.array(slices[0].ImageOrientationPatient, float), 2)
    slices.sort(key=lambda each: float(np.cross(x, y) @ np.array(each.ImagePositionPatient, float)))
    between_rows, between_columns = map(float, slices[0].PixelSpacing)
    first, last = (np.array(each.ImagePositionPatient, float) for each in (slices[0], slices[-1]))
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 3] = x * between_columns, y * between_rows, first
    affine[:3, 2] = (last - first) / (len(slices) - 1)
    affine[:2] *= -1  # left and posterior of DICOM are right and anterior of NIfTI
    data = np.stack([each.pixel_array.T for each in slices], axis=-1)
    return nifti(target, data, affine)


@pytest.mark.parametrize(
    "row, column", [((1, 0, 0), (0, 1, 0)), ((0, 1, 0), (0, 0, -1)), ((1, 0, 0), (0, 0, -1)), ((0, -1, 0), (1, 0, 0))]
)
def test_one_scan_as_dicom_and_as_nifti_is_one_volume(
    tmp_path: Path, row: tuple[int, int, int], column: tuple[int, int, int]
):
    same_volume(stack(tmp_path / "scan", row, column), tmp_path / "scan.nii")


def test_a_real_series_as_dicom_and_as_nifti_is_one_volume(shared_data: Path, tmp_path: Path):
    same_volume(sorted((shared_data / "dicom_mr_series").glob("*.dcm")), tmp_path / "scan.nii")


def same_volume(paths: list[Path], target: Path) -> None:
    (series,), unused = find_series(paths)
    assert not unused
    dicom, other = read_series(series), read_nifti(as_nifti(paths, target))
    np.testing.assert_array_equal(dicom.pixels, other.pixels)
    np.testing.assert_allclose(dicom.spacing_mm, other.spacing_mm, rtol=1e-4)
