"""A blob stays at its place in the patient whatever is done to the volume that shows it."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from data_shards.prepare.document import Preparation
from data_shards.prepare.prepared import prepare
from data_shards.sources.images.nifti import read_nifti

SHAPE = (20, 24, 16)
STEPS_MM = (1.5, 2.0, 3.0)


def affine_of(turns: str) -> np.ndarray:
    """Axes that run as a word like ``LPS`` says; tilted by 20 degrees with an asterisk."""
    affine = np.zeros((4, 4))
    for axis, letter in enumerate(turns[:3]):
        world, sign = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}[letter]
        affine[world, axis] = sign * STEPS_MM[axis]
    if turns.endswith("*"):
        c, s = np.cos(np.radians(20)), np.sin(np.radians(20))
        affine[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ affine[:3, :3]
    affine[:, 3] = (-30, 40, 7, 1)
    return affine


def centre_mm(values: np.ndarray, affine: np.ndarray) -> np.ndarray:
    weights = np.clip(values.astype(float) - 0.2 * values.max(), 0, None)
    places = np.stack(np.meshgrid(*map(np.arange, values.shape), indexing="ij"), axis=-1).reshape(-1, 3)
    return affine[:3, :3] @ (weights.reshape(-1) @ places / weights.sum()) + affine[:3, 3]


@pytest.mark.parametrize("turns", ["RAS", "LPS", "SPL", "IRP", "ASL*", "LAS*"])
@pytest.mark.parametrize(
    ("options", "off_mm"),
    [
        ({}, 1e-3),
        ({"crop": "foreground", "margin": 1}, 1e-3),
        ({"size": [12, 40, 17]}, 1e-3),
        ({"size": [13, 30, 21], "fit": "resize"}, 0.4),
        ({"spacing_mm": 2.5}, 0.4),
        ({"spacing_mm": 2.0, "crop": "foreground", "size": 18}, 0.4),
    ],
)
def test_world_coordinates_of_a_blob(tmp_path: Path, turns: str, options: dict, off_mm: float) -> None:
    i, j, k = np.ogrid[tuple(map(slice, SHAPE))]
    blob = 1000 * np.exp(-((i - 11) ** 2 + (j - 10) ** 2 + (k - 9) ** 2) / 6)
    stored = nibabel.Nifti1Image(blob.astype(np.float32), affine_of(turns))
    nibabel.save(stored, tmp_path / "blob.nii.gz")
    expected = centre_mm(blob, nibabel.load(tmp_path / "blob.nii.gz").affine)
    (image,) = prepare({"image": read_nifti(tmp_path / "blob.nii.gz")}, Preparation(**options)).values()
    assert image.affine is not None
    assert np.linalg.norm(centre_mm(image.pixels[0], image.affine) - expected) <= off_mm
    np.testing.assert_allclose(np.linalg.norm(image.affine[:3, :3], axis=0), image.spacing_mm, rtol=1e-5)


def test_where_the_file_does_not_say_it_nothing_is_known(tmp_path: Path) -> None:
    volume = nibabel.Nifti1Image(np.zeros(SHAPE, np.int16), None)
    volume.set_qform(None, 0)
    volume.set_sform(None, 0)
    nibabel.save(volume, tmp_path / "bare.nii")
    assert read_nifti(tmp_path / "bare.nii").affine is None
