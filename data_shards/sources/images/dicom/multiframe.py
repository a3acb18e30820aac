"""Multi-frame files without functional groups: what counts their frames, slices of a volume or something else.

Frame Increment Pointer (0028,0009) names the attributes that rise from frame to frame (PS3.3 section C.7.6.6). Only
Slice Vector and Slice Location Vector are places. A clip of ultrasound or angiography is a time series; a nuclear
medicine file may count detectors, energy windows, angles or phases beside slices (PS3.3 section C.8.4.8).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from data_shards.sources.images.dicom import elements
from data_shards.sources.images.dicom.frames import Frame
from data_shards.sources.images.dicom.plane import Plane, at_right_angles
from data_shards.sources.images.dicom.traits import TRAITS
from data_shards.support.errors import DataError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

# Frames that differ in one of these are no slices of one volume.
_VECTORS = (
    *("TimeSlotVector", "TimeSliceVector", "RRIntervalVector", "PhaseVector", "AngularViewVector"),
    *("RotationVector", "DetectorVector", "EnergyWindowVector"),
)
_TIMES = ("FrameTime", "FrameTimeVector")


def frame_planes(dataset: Dataset, count: int, whole: Plane, *, sliced: bool) -> tuple[tuple[Plane, ...], str]:
    """The plane of each frame of a file that does not describe its frames one by one.

    Args:
        dataset: of the file.
        count: of its frames, more than one.
        whole: what the file says of all of them.
        sliced: whether its modality makes volumes in slices, so that frames of which nothing is said are slices.

    Returns:
        The planes, and what their frames differ in when each of them is an image of its own; empty when they are
        slices.

    Raises:
        DataError: a vector has another length than there are frames.
    """
    pointers = _pointers(dataset)
    base = replace(whole, position=None, orientation=None, location=None, timed=False)
    if "SliceVector" in pointers or ("SliceLocationVector" in pointers and not pointers & {*_VECTORS, *_TIMES}):
        name = "SliceVector" if "SliceVector" in pointers else "SliceLocationVector"
        slices = _vector(dataset, name, count)
        others = [_vector(dataset, other, count) for other in _VECTORS if other in pointers]
        if name == "SliceLocationVector":
            return tuple(replace(base, location=place, number=float(n)) for n, place in enumerate(slices)), ""
        start, step = _first_slice(dataset, whole)
        planes = []
        for frame, number in enumerate(slices):
            # What else is counted stands where the traits end, as the dimensions of enhanced files do.
            extra = tuple(f"{other[frame]:g}" for other in others)
            plane = replace(base, number=number, traits=(*whole.traits[: len(TRAITS)], *extra))
            if start is not None:
                position, orientation = start
                place = tuple(float(at + (number - 1) * by) for at, by in zip(position, step, strict=True))
                plane = replace(plane, position=place, orientation=orientation)
            planes.append(plane)
        return tuple(planes), ""
    apart = next((name for name in (*_VECTORS, *_TIMES) if name in pointers), "")
    if not apart:
        apart = next((name for name in _TIMES if elements.value(dataset, name) is not None), "")
    if not apart and whole.timed:
        apart = "NumberOfTemporalPositions"
    if not apart and not sliced:
        apart = "frame"
    return tuple(replace(base, number=float(frame)) for frame in range(count)), apart


def _pointers(dataset: Dataset) -> set[str]:
    from pydicom.datadict import keyword_for_tag

    found = elements.value(dataset, "FrameIncrementPointer")
    tags = found if isinstance(found, (list, tuple)) or hasattr(found, "append") else [found]
    return {keyword_for_tag(tag) for tag in tags if tag is not None}


def _vector(dataset: Dataset, keyword: str, count: int) -> tuple[float, ...]:
    found = elements.as_numbers(elements.value(dataset, keyword), keyword, count)
    if found is None:
        raise DataError(f"{keyword} is missing")
    return found


def _first_slice(
    dataset: Dataset, whole: Plane
) -> tuple[tuple[tuple[float, ...], tuple[float, ...]] | None, tuple[float, ...]]:
    """Position and orientation of slice 1 and the step to the next one; None when the file does not say them.

    A negative Spacing Between Slices means that slices run against the normal (PS3.3 section C.8.4.15).
    """
    detector = elements.first_item(dataset, "DetectorInformationSequence")
    spacing = elements.as_numbers(elements.value(dataset, "SpacingBetweenSlices"), "SpacingBetweenSlices", 1)
    step = spacing[0] if spacing else whole.thickness
    position, orientation = whole.position, whole.orientation
    if detector is not None:
        frame = Frame(detector)
        position = position or frame.numbers("ImagePositionPatient", 3)
        given = frame.numbers("ImageOrientationPatient", 6)
        orientation = orientation or (at_right_angles(given) if given else None)
    if position is None or orientation is None or not step:
        return None, ()
    directions = replace(whole, orientation=orientation).directions
    assert directions is not None
    return (position, orientation), tuple((directions[0] * step).tolist())
