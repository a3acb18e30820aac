"""``medformer predict --instances`` on volumes: maps that a viewer lays over the image that was given."""

from __future__ import annotations

import csv
from pathlib import Path

import nibabel
import numpy as np
import pytest

from finetune.classifier.estimator import FewLabelClassifier
from finetune.readers import read_cases
from medformer.cli import main
from pretrain.bundle import save_bundle
from tests.finetune.samples import TINY, tiny_backbone

SHAPE = (24, 20, 28)
BLOB = (16.0, 6.0, 9.0)


def affine_of(turned: bool) -> np.ndarray:
    """Axes that run to left, superior and posterior, and a tilt."""
    affine = np.array([[-1.5, 0, 0, 20], [0, 0, -1.5, 33], [0, 1.5, 0, -50], [0, 0, 0, 1]])
    if turned:
        c, s = np.cos(0.2), np.sin(0.2)
        affine[:3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ affine[:3]
    return affine


def written(folder: Path, name: str, affine: np.ndarray, *, blob: bool) -> None:
    grid = np.ogrid[tuple(map(slice, SHAPE))]
    far = sum((axis - centre) ** 2 for axis, centre in zip(grid, BLOB, strict=True))
    values = np.full(SHAPE, 50.0) + 500 * np.exp(-far / 5) * blob
    values[0, 0, 0], values[-1, -1, -1] = 0, 600  # so that both images have one range
    nibabel.save(nibabel.Nifti1Image(values.astype(np.int16), affine), folder / name)


@pytest.mark.parametrize("prepare", [{}, {"size": [20, 32, 16]}, {"spacing_mm": 1.0}])
@pytest.mark.parametrize("turned", [False, True])
def test_a_blob_has_the_world_coordinates_of_the_image(tmp_path: Path, turned: bool, prepare: dict) -> None:
    save_bundle(tmp_path / "tiny", tiny_backbone(), "medformer_nano", TINY, {}, {})
    images, affine = tmp_path / "images", affine_of(turned)
    images.mkdir()
    for number in range(8):
        written(images, f"{number}.nii.gz", affine, blob=bool(number % 2))
    rows = "".join(f"{number}.nii.gz,{'ab'[number % 2]}\n" for number in range(8))
    (tmp_path / "table.csv").write_text(f"path,label\n{rows}")
    (cases,) = read_cases(images, csv=tmp_path / "table.csv", prepare=prepare).values()
    model = FewLabelClassifier(tmp_path / "tiny", calibrate=False, head_options={"reads": "mean"}).fit(cases)
    model.save(tmp_path / "model")
    words = ["predict", str(tmp_path / "model"), "--data", str(images), "--csv", str(tmp_path / "table.csv")]
    words += ["--out", str(tmp_path / "p.csv"), "--instances", str(tmp_path / "maps"), "--show-paths"]
    assert main(words) == 0
    with open(tmp_path / "maps" / "instances.csv", newline="") as file:
        found = list(csv.DictReader(file))
    assert [row["name"] for row in found] == [f"{number}.nii.gz" for number in range(8)]
    without, with_blob = (nibabel.load(tmp_path / "maps" / f"{number:06}.nii.gz") for number in (1, 2))
    with np.load(tmp_path / "maps" / "000002.npz") as arrays:
        np.testing.assert_array_equal(np.moveaxis(with_blob.get_fdata(), -1, 0), arrays["probabilities"])
    np.testing.assert_array_equal(with_blob.affine, without.affine)
    moved = np.abs(with_blob.get_fdata() - without.get_fdata())[..., 0]
    cell = np.unravel_index(moved.argmax(), moved.shape)
    there = with_blob.affine @ (*cell, 1.0)
    expected = affine @ (*BLOB, 1.0)
    # The directions of the axes too: in cells, along each axis of the map.
    off = np.linalg.inv(with_blob.affine[:3, :3]) @ (there - expected)[:3]
    assert np.abs(off).max() <= 1.0, off
    # The whole field of view is that of the image, up to what was cut or padded and half a cell.
    if not prepare:
        corners = [affine @ (*(np.array(SHAPE) - 1) * end, 1.0) for end in (0, 1)]
        inside = np.linalg.inv(with_blob.affine) @ np.array(corners).T
        assert (inside[:3] > -1.01).all() and (np.array(moved.shape) + 0.01 > inside[:3].T).all()
