"""A map as a file on the grid of the image that it explains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image

from data_shards.sample import Image
from data_shards.sources.images.orientation import Grid, canonical_grid
from data_shards.support.errors import DataError
from finetune.explain.space import CellMap
from finetune.images import Origin, Study

_SAME_VOXELS = 1e-2
"""Two descriptions of one file that differ by less than this, in voxels, are one: headers hold float32."""


def write_map(folder: Path, stem: str, said: CellMap, study: Study) -> str:
    """Write a map, float32, and return the name of the file.

    A map of a volume is a NIfTI file: where the volume was read from one, with the shape and the affine of that file;
    else on the grid of the volume with axes D,H,W, its affine where that is known, or its spacing. A map of a plane is
    a TIFF file of the size of the picture. Both are 0 where preparation had cut the image off.

    Args:
        folder: exists.
        stem: of the name.
        said: of an image as the network saw it.
        study: the image is of.
    """
    image = study.images[said.image]
    origin = study.origins.get(said.image) or Origin(image.pixels.shape[1:], np.eye(image.pixels.ndim), image.affine)
    if len(said.shape) == 2:
        name = f"{stem}.tif"
        PIL.Image.fromarray(said.on_grid(origin.shape, origin.change)).save(folder / name)
        return name
    import nibabel

    shape, affine, change = _grid(origin, image)
    volume = nibabel.Nifti1Image(said.on_grid(shape, change), affine)
    volume.header.set_xyzt_units("mm")
    name = f"{stem}.nii.gz"
    nibabel.save(volume, folder / name)
    return name


def _grid(origin: Origin, image: Image) -> tuple[tuple[int, ...], np.ndarray, np.ndarray]:
    """Shape and affine of the file, and what brings indices of the image as it is shown to it."""
    if origin.affine is None:
        # Distances as they were before the image was prepared.
        factors = np.abs(np.diag(origin.change))[:3]
        spacing = np.array(image.spacing_mm or (1.0,) * 3) / (factors if image.spacing_mm else 1.0)
        return origin.shape, np.diag([*np.where(np.isfinite(spacing), spacing, 1.0), 1.0]), origin.change
    if origin.path is not None and (found := _file_grid(origin.path)) is not None:
        shape, affine = found
        try:
            canonical = canonical_grid(shape, affine)
        except DataError:
            canonical = None
        if canonical is not None and canonical.voxels_from(Grid(origin.shape, origin.affine)) < _SAME_VOXELS:  # type: ignore[arg-type]
            return shape, affine, np.linalg.inv(affine) @ origin.affine @ origin.change
    return origin.shape, origin.affine, origin.change


def _file_grid(path: Path) -> tuple[tuple[int, ...], np.ndarray] | None:
    """Shape and affine of a NIfTI file; None of any other."""
    if not path.name.lower().endswith((".nii", ".nii.gz")) or not path.is_file():
        return None
    import nibabel

    image = nibabel.load(path)
    assert isinstance(image, nibabel.Nifti1Pair)
    return tuple(image.shape[:3]), np.asarray(image.affine)
