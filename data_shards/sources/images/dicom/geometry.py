"""Order of slices, their distance, and the directions of the axes of a stack.

Slices are ordered by the projection of Image Position (Patient) on the normal of the slices (PS3.3 section
C.7.6.2.1.1), never by Instance Number, which scanners count in either direction.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data_shards.sources.images.dicom.plane import Plane
from data_shards.sources.images.dicom.rules import SliceRules
from data_shards.support.errors import DataError

# Two slices are at one place when they lie closer than a fifth of the largest gap, within these bounds: the upper one
# is what rounding to one digit can part, the lower one what no scanner resolves.
_SAME_PLACE_MM = (1e-3, 0.11)
_TO_RAS = np.array([-1.0, -1.0, 1.0])  # DICOM counts to left and posterior
# Resampled slices are as far apart as the closest tenth of the gaps: a single tiny gap does not decide.
_FINE = 0.1


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


def in_mm(planes: Sequence[Plane]) -> bool:
    """Whether heights are distances in the patient, and not numbers of slices."""
    return all(plane.placed for plane in planes) or all(plane.location is not None for plane in planes)


def places(found: np.ndarray) -> np.ndarray:
    """The number of the place of each height, counted from the lowest; equal for slices that lie at one place."""
    order = np.argsort(found, kind="stable")
    gaps = np.diff(found[order])
    lowest, highest = _SAME_PLACE_MM
    apart = gaps > (np.clip(gaps.max() / 5, lowest, highest) if len(gaps) else 0)
    result = np.empty(len(found), dtype=np.int64)
    result[order] = np.concatenate([[0], np.cumsum(apart)])
    return result


def slice_order(planes: Sequence[Plane]) -> list[int]:
    """The planes in rising height; as given when no height is known."""
    found = heights(planes)
    return list(range(len(planes))) if found is None else np.argsort(found, kind="stable").tolist()


def slice_spacing(planes: Sequence[Plane], rules: SliceRules) -> tuple[float | None, np.ndarray | None]:
    """Distance between neighbouring slices in mm, None when it is not known.

    It is that of the regular grid that fits the heights best (least squares), so that rounded positions average out.
    Heights are measured along the normal. Slices may be shifted against each other within their planes by a constant
    step, as those of a CT with tilted gantry are: the distance is exact then, the shift is left as it is.

    Args:
        planes: in rising height.
        rules: how far they may lie off the grid.

    Returns:
        The distance; and, when slices lie off it and are to be resampled, the places of the regular grid in numbers of
        slices (2.5 is half way between the third and the fourth), else None.

    Raises:
        DataError: a slice is missing, twice there, or shifted irregularly, or the distance varies; which of them.
    """
    found = heights(planes)
    if found is None or len(planes) < 2:
        return planes[0].thickness, None
    mm = in_mm(planes)
    if all(plane.placed for plane in planes):
        _check_shift(np.array([plane.position for plane in planes]), found, rules)
    numbers = np.arange(len(found))
    distance, start = np.polyfit(numbers, found, 1)
    if distance > 0 and np.abs(found - start - distance * numbers).max() <= rules.tolerance(distance):
        return float(distance) if mm else planes[0].thickness, None
    gaps = np.diff(found)
    if not rules.resample or not mm or gaps.min() <= _SAME_PLACE_MM[0]:
        raise DataError(_what_is_wrong(found, rules, "mm" if mm else "instance numbers"))
    span = float(found[-1] - found[0])
    steps = max(1, round(span / float(np.quantile(gaps, _FINE, method="lower"))))
    return span / steps, np.interp(np.linspace(found[0], found[-1], steps + 1), found, numbers)


def _what_is_wrong(found: np.ndarray, rules: SliceRules, unit: str) -> str:
    """What keeps slices from being a volume, in the words of somebody who looks for the cause."""
    gaps = np.diff(found)
    typical = float(np.quantile(gaps, 0.5, method="lower"))
    allowed = 2 * rules.tolerance(typical)  # both ends of a gap may be off their places
    lowest = int(np.argmin(gaps))
    if typical <= 0 or gaps[lowest] <= min(allowed, _SAME_PLACE_MM[1]):
        return f"slices {lowest + 1} and {lowest + 2} of {len(found)} lie at one place: a slice is twice there"
    multiples = np.rint(gaps / typical)
    whole = bool((multiples >= 1).all() and (np.abs(gaps - multiples * typical) <= allowed * multiples).all())
    wide = np.flatnonzero(multiples > 1)
    if whole and 1 <= len(wide) <= max(1, len(gaps) // 10):
        first, missing = int(wide[0]), int((multiples - 1).sum())
        slices = "a slice is missing" if missing == 1 else f"{missing} slices are missing"
        return (
            f"slices {first + 1} and {first + 2} of {len(found)} lie {gaps[first]:.3f} {unit} apart, most others "
            f"{typical:.3f}: {slices}"
        )
    groups: list[list[float]] = []
    for gap in sorted(gaps.tolist()):
        if groups and gap - groups[-1][0] <= allowed:
            groups[-1].append(gap)
        else:
            groups.append([gap])
    common = sorted(sorted(groups, key=len, reverse=True)[:3])
    words = [f"{len(group)} of {np.mean(group):.3g} {unit}" for group in common]
    words[0] = words[0].replace(" of ", " gaps of " if len(common[0]) > 1 else " gap of ", 1)
    others = len(gaps) - sum(map(len, common))
    return (
        f"the distance of the slices varies: {', '.join(words)}{f' and {others} others' if others else ''}; "
        "uneven_slices: resample interpolates them onto a regular grid"
    )


def _check_shift(positions: np.ndarray, found: np.ndarray, rules: SliceRules) -> None:
    """Refuse slices that are shifted within their planes otherwise than along a straight line."""
    distance = float(np.median(np.diff(found)))
    if len(found) < 3 or distance <= 0:
        return
    x = found - found.mean()
    line = positions.mean(axis=0) + np.outer(x, x @ positions / (x @ x))
    off = np.linalg.norm(positions - line, axis=1)
    if off.max() > rules.tolerance(distance):
        worst = int(np.argmax(off))
        # A slice that is shifted alone pulls the line towards itself: told is how far it lies from that of the others.
        pull = 1 / len(x) + x[worst] ** 2 / (x @ x)
        raise DataError(
            f"slice {worst + 1} of {len(positions)} is shifted by {off[worst] / max(1 - pull, 1e-9):.3f} mm within its "
            f"plane in a way the others are not: the slices do not form a volume"
        )


def placed_affine(first: Plane, last: Plane, count: int) -> np.ndarray:
    """Affine of a stack ``D,H,W`` of ``count`` slices, in the axes of NIfTI.

    Args:
        first: the lowest slice, placed in the patient and of known spacing.
        last: the highest, likewise.
        count: how many there are from one to the other.
    """
    assert first.spacing is not None
    ends = [np.array(plane.position, dtype=float) * _TO_RAS for plane in (first, last)]
    affine = affine_of(first, (1.0, *first.spacing))
    affine[:3, 0] = (ends[1] - ends[0]) / max(1, count - 1)
    affine[:3, 3] = ends[0]
    return affine


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
