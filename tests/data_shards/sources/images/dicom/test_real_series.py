from __future__ import annotations

import random
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest

from data_shards.sample import Image
from data_shards.sources.images.dicom import find_series, read_series
from data_shards.support.errors import DataError
from data_shards.vocabulary import Modality
from tests.data_shards.sources.images.dicom.make import read


@pytest.fixture(scope="module")
def files(shared_data: Path) -> list[Path]:
    return sorted((shared_data / "dicom_mr_series").glob("*.dcm"))


@pytest.fixture(scope="module")
def volume(files: list[Path]) -> Image:
    return read(files)


def test_the_series_is_one_volume_of_known_place(files: list[Path], volume: Image) -> None:
    (series,), unused = find_series(files)
    assert not unused and series.oriented and len(series.paths) == 96 and series.modality is Modality.mri
    assert volume.pixels.shape == (1, 96, 384, 274)
    assert volume.spacing_mm == pytest.approx((0.666667, 0.666667, 0.699988), abs=1e-5)


def test_axes_are_those_nibabel_finds_for_the_affine_of_the_standard(files: list[Path], volume: Image) -> None:
    # PS3.3 equation C.7.6.2.1-1 with the files in any fixed order, here that of their names.
    datasets = [pydicom.dcmread(path) for path in files]
    first, last = (np.array(dataset.ImagePositionPatient, float) for dataset in (datasets[0], datasets[-1]))
    along_row, along_column = np.reshape(np.array(datasets[0].ImageOrientationPatient, float), (2, 3))
    between_rows, between_columns = map(float, datasets[0].PixelSpacing)
    step = (last - first) / (len(files) - 1)
    columns = [along_row * between_columns, along_column * between_rows, step, first]
    affine = np.vstack([np.stack(columns, axis=1) * [[-1], [-1], [1]], [0, 0, 0, 1]])
    stacked = np.stack([dataset.pixel_array.T for dataset in datasets], axis=-1)
    canonical = nibabel.as_closest_canonical(nibabel.Nifti1Image(stacked, affine))  # right, anterior, superior
    assert nibabel.aff2axcodes(canonical.affine) == ("R", "A", "S")
    expected = np.asarray(canonical.dataobj).T[:, ::-1, ::-1]  # superior, posterior, left
    assert np.array_equal(volume.pixels[0], expected)
    assert volume.spacing_mm == pytest.approx(canonical.header.get_zooms()[::-1], rel=1e-4)


def test_shuffled_and_renamed_files_give_the_identical_volume(files: list[Path], volume: Image, tmp_path: Path) -> None:
    names = random.Random(0).sample(range(len(files)), len(files))
    links = []
    for name, path in zip(names, files, strict=True):
        (tmp_path / f"{name:03d}").symlink_to(path.resolve())
        links.append(tmp_path / f"{name:03d}")
    image = read(sorted(links))
    assert np.array_equal(image.pixels, volume.pixels) and image.spacing_mm == volume.spacing_mm


def test_a_slice_taken_out_is_noticed(files: list[Path]) -> None:
    (series,), _ = find_series(files[:40] + files[41:])
    with pytest.raises(DataError, match=r"of 95 lie 1.333 mm apart, most others 0.667: a slice is missing"):
        read_series(series)
