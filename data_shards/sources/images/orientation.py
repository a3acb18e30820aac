"""One convention for the axes of volumes, whatever the scanner and the file format."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data_shards.support.errors import DataError

# Where D, H and W run to: superior, posterior, left of the patient. This is the order of an axial DICOM series sorted
# from feet to head, whose rows run to the left and whose columns run to the back (DICOM PS3.3 C.7.6.2.1.1).
CANONICAL = ("S", "P", "L")

# Anything outside is not a distance between voxels of a body, of a cell or of what lies between.
_SMALLEST_MM, _LARGEST_MM = 1e-6, 1e4


def to_canonical(volume: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, tuple[float, ...], tuple[int, ...]]:
    """Permute and flip the axes of a volume so that they run as :data:`CANONICAL` says.

    Nothing is resampled: in an oblique volume each axis is taken for the direction it is closest to.

    Args:
        volume: axes ``i,j,k`` of the file first; further axes stay where they are.
        affine: 4x4, from voxel indices to millimetres that grow to right, anterior and superior (NIfTI-1, section
            "3D image (volume) orientation and location in space").

    Returns:
        The volume ``D,H,W,...`` as a view; the spacing of D, H and W in mm, which are the norms of the columns of the
        affine; and for each of D, H and W which axis of the file it was.

    Raises:
        DataError: the affine is not finite, is singular, or means distances that no image has.
    """
    from nibabel import orientations

    norms, change = _change(affine)
    source = tuple(int(axis) for axis in np.argsort(change[:, 0]))
    return orientations.apply_orientation(volume, change), tuple(float(norms[axis]) for axis in source), source


@dataclass(frozen=True)
class Grid:
    """Where the voxels of a volume ``D,H,W`` in canonical axes lie in the patient.

    Attributes:
        shape: voxels along D, H and W.
        affine: 4x4, from their indices to mm that grow to right, anterior and superior.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray

    def voxels_from(self, other: Grid) -> float:
        """How far a voxel lies at most from the voxel of ``other`` with its indices, in sides of a voxel.

        Both are affine, so it is a corner that lies farthest. Infinite when the shapes differ.
        """
        if self.shape != other.shape:
            return math.inf
        corners = np.array([(*corner, 1.0) for corner in itertools.product(*((0, size - 1) for size in self.shape))])
        distances = np.linalg.norm(corners @ (self.affine - other.affine)[:3].T, axis=1)
        return float(distances.max() / np.linalg.norm(self.affine[:3, :3], axis=0).min())


def canonical_grid(shape: Sequence[int], affine: np.ndarray) -> Grid:
    """Where the voxels lie after :func:`to_canonical`.

    Args:
        shape: voxels along ``i,j,k`` of the file.
        affine: as for :func:`to_canonical`.

    Raises:
        DataError: as for :func:`to_canonical`.
    """
    from nibabel import orientations

    _, change = _change(affine)
    turned = orientations.apply_orientation(np.broadcast_to(0, tuple(shape)), change)
    return Grid(turned.shape, affine @ orientations.inv_ornt_aff(change, tuple(shape)))


def usable(affine: np.ndarray) -> bool:
    """Whether :func:`to_canonical` accepts an affine."""
    try:
        _change(affine)
    except DataError:
        return False
    return True


def _change(affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lengths of the columns of an affine, and what nibabel turns a volume by."""
    from nibabel import orientations

    columns = affine[:3, :3].astype(float)
    norms = np.linalg.norm(columns, axis=0) if np.isfinite(affine).all() else np.zeros(3)
    check_spacing(norms)
    if np.linalg.matrix_rank(columns / norms, tol=1e-3) < 3:
        raise DataError("the orientation of the volume is unusable: its axes do not span space")
    found = orientations.io_orientation(affine)
    return norms, orientations.ornt_transform(found, orientations.axcodes2ornt(CANONICAL))


def check_spacing(spacing_mm: Sequence[float] | np.ndarray) -> None:
    """Refuse distances that no image has.

    Raises:
        DataError: one is not a number between a millionth of a millimetre and ten metres.
    """
    if not all(_SMALLEST_MM <= float(step) <= _LARGEST_MM for step in spacing_mm):
        found = " x ".join(f"{float(step):g}" for step in spacing_mm)
        raise DataError(f"the spacing of the volume is unusable: {found} mm")
