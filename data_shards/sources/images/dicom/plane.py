"""Where one frame lies in the patient, and what else tells it from a frame at the same place."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from data_shards.sources.images.dicom import elements
from data_shards.sources.images.dicom.frames import Frame
from data_shards.sources.images.dicom.traits import TRAITS, as_number
from data_shards.support.errors import DataError

# Direction cosines are often rounded, to one digit at worst; beyond this they are wrong.
_COSINE_TOLERANCE = 5e-2


@dataclass(frozen=True)
class Plane:
    """Geometry of one frame, lengths in mm, in the patient's axes: x to the left, y to the back, z to the head.

    Attributes:
        position: centre of the first pixel (Image Position Patient).
        orientation: directions of a row and of a column (Image Orientation Patient), two unit vectors at right angles.
        spacing: distance between rows, then between columns (Pixel Spacing has this order).
        thickness: spacing between slices or, without it, slice thickness.
        location: slice location, a distance along an unnamed axis.
        number: instance number or, in a multi-frame file, the number of the slice there.
        traits: what else may differ between frames at one position, as text, one for each of
            :data:`~data_shards.sources.images.dicom.traits.TRAITS` and then the file's own dimensions; for comparing.
        timed: whether the file says that its series has several time points.
    """

    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    spacing: tuple[float, ...] | None
    thickness: float | None
    location: float | None
    number: float | None
    traits: tuple[str, ...] = ()
    timed: bool = False

    @property
    def directions(self) -> np.ndarray | None:
        """Unit vectors of the slice axis, of rising row index and of rising column index, as rows of a matrix."""
        if self.orientation is None:
            return None
        along_row, along_column = np.reshape(self.orientation, (2, 3))
        return np.stack([np.cross(along_row, along_column), along_column, along_row])

    @property
    def placed(self) -> bool:
        """Whether the place in the patient is known."""
        return self.position is not None and self.orientation is not None


def plane_of(frame: Frame, *, projection: bool) -> Plane:
    """The plane of a frame.

    Args:
        frame: of a file.
        projection: a projection radiograph, whose Imager Pixel Spacing stands in for a missing Pixel Spacing.

    Raises:
        DataError: an attribute is not the numbers it should be, or the directions are not at right angles.
    """
    orientation = frame.numbers("ImageOrientationPatient", 6)
    if orientation is not None and not any(orientation):  # zeros, as radiographs have them, say nothing
        orientation = None
    spacing = frame.numbers("PixelSpacing", 2)
    if spacing is None and projection:
        spacing = frame.numbers("ImagerPixelSpacing", 2)
    points = ("NumberOfTemporalPositions", "CardiacNumberOfImages")
    return Plane(
        position=frame.numbers("ImagePositionPatient", 3),
        orientation=None if orientation is None else at_right_angles(orientation),
        spacing=spacing if spacing and min(spacing) > 0 else None,
        thickness=_positive(frame, "SpacingBetweenSlices") or _positive(frame, "SliceThickness"),
        # Of an enhanced file these two describe the file and not the frame.
        location=_one(frame, "SliceLocation") if frame.index is None else None,
        number=_one(frame, "InstanceNumber") if frame.index is None else _number_in_stack(frame, frame.index),
        traits=(*(_trait(frame, trait.names) for trait in TRAITS), *frame.dimensions()),
        timed=any((as_number(_trait(frame, (name,))) or 1) > 1 for name in points),
    )


def at_right_angles(orientation: tuple[float, ...]) -> tuple[float, ...]:
    """Two unit vectors at right angles from two that rounding has kept from being so, each turned equally far.

    Raises:
        DataError: they are further from it than rounding explains.
    """
    directions = np.reshape(orientation, (2, 3))
    lengths = np.linalg.norm(directions, axis=1)
    if np.abs(lengths - 1).max() > _COSINE_TOLERANCE or abs(directions[0] @ directions[1]) > _COSINE_TOLERANCE:
        raise DataError("ImageOrientationPatient is not two unit vectors at right angles")
    first, second = directions / lengths[:, None]
    if first @ second == 0:
        return (*first.tolist(), *second.tolist())
    # Sum and difference of unit vectors are at right angles to each other: turned back by 45 degrees, they are the
    # pair at right angles that is nearest to the given one.
    between, across = (vector / np.linalg.norm(vector) for vector in (first + second, first - second))
    return (*((between + across) / math.sqrt(2)).tolist(), *((between - across) / math.sqrt(2)).tolist())


def _one(frame: Frame, keyword: str) -> float | None:
    numbers = frame.numbers(keyword, 1)
    return numbers[0] if numbers else None


def _number_in_stack(frame: Frame, index: int) -> float:
    found = _one(frame, "InStackPositionNumber")
    return float(index) if found is None else found


def _positive(frame: Frame, keyword: str) -> float | None:
    found = _one(frame, keyword)
    return abs(found) if found else None


def _trait(frame: Frame, names: tuple[str, ...]) -> str:
    found = next((found for name in names if (found := frame.value(name)) is not None), "")
    return found if isinstance(found, str) else elements.joined(found)
