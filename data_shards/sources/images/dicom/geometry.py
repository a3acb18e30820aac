"""Order of slices, their distance, and the directions of the axes of a stack.

Slices are ordered by the projection of Image Position (Patient) on the normal of the slices (PS3.3 section
C.7.6.2.1.1), never by Instance Number, which scanners count in either direction.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data_shards.sources.images.dicom.plane import Plane
from data_shards.support.errors import DataError

# Gaps between slices may differ by so much of their median: more is a missing slice or a varying distance.
_GAP_TOLERANCE = 0.01
# Positions closer than this along the normal are the same place; scanners write at least so many digits.
SAME_PLACE_MM = 0.01


def heights(planes: Sequence[Plane]) -> np.ndarray | None:
    """Where the slices lie along their normal, in mm; else their slice locations, else their instance numbers.

    Returns:
        One number for each plane, or None when nothing of this is known for all of them.
    """
    if all(plane.placed for plane in planes):
        directions = planes[0].directions
        assert directions is not None
        return np.array([plane.position for plane in planes], dtype=np.float64) @ directions[0]
    for name in ("location", "number"):
        found = [getattr(plane, name) for plane in planes]
        if all(number is not None for number in found):
            return np.array(found, dtype=np.float64)
    return None


def slice_order(planes: Sequence[Plane]) -> list[int]:
    """The planes in rising height; as given when no height is known."""
    found = heights(planes)
    return list(range(len(planes))) if found is None else np.argsort(found, kind="stable").tolist()


def slice_spacing(planes: Sequence[Plane]) -> float | None:
    """Distance between neighbouring slices in mm; None when it is not known.

    The distance is measured along the normal. Slices may be shifted against each other within their planes by a
    constant step, as those of a CT with tilted gantry are: the distance is exact then, the shift is left as it is.

    Args:
        planes: in rising height.

    Raises:
        DataError: a gap differs from the median gap by more than 1 %, or slices are shifted irregularly.
    """
    found = heights(planes)
    if found is None or len(planes) < 2:
        return planes[0].thickness
    placed = all(plane.placed for plane in planes)
    unit = "mm" if placed or all(plane.location is not None for plane in planes) else "instance numbers"
    gaps = np.diff(found)
    median = float(np.median(gaps))
    worst = int(np.argmax(np.abs(gaps - median)))
    if median <= 0 or abs(gaps[worst] - median) > _GAP_TOLERANCE * median:
        raise DataError(
            f"slices {worst + 1} and {worst + 2} of {len(planes)} lie {gaps[worst]:.3f} {unit} apart, the others "
            f"{median:.3f}: a slice is missing or twice there"
        )
    if placed:
        _check_shift(np.array([plane.position for plane in planes]), median)
    return median if unit == "mm" else planes[0].thickness


def _check_shift(positions: np.ndarray, gap: float) -> None:
    steps = np.diff(positions, axis=0)
    irregular = np.linalg.norm(steps - np.median(steps, axis=0), axis=1)
    worst = int(np.argmax(irregular))
    # The step along the normal was checked; in the plane a shift of a hundredth of the gap cannot be seen either.
    if irregular[worst] > max(2 * _GAP_TOLERANCE * gap, SAME_PLACE_MM):
        raise DataError(
            f"slice {worst + 2} of {len(positions)} is shifted by {irregular[worst]:.3f} mm against its neighbour "
            f"in a way the others are not: the slices do not form a volume"
        )


def affine_of(plane: Plane, spacing: Sequence[float]) -> np.ndarray:
    """Affine of a stack ``D,H,W`` without its origin, in the axes of NIfTI (right, anterior, superior).

    Args:
        plane: one of the stack, placed in the patient.
        spacing: between slices, rows and columns; empty when unknown, for directions of length 1.
    """
    directions = plane.directions
    assert directions is not None
    affine = np.eye(4)
    affine[:3, :3] = directions.T * ([-1], [-1], [1]) * np.array(spacing or (1, 1, 1))
    return affine
