"""From stored to real values (PS3.3 section C.11.1), in the smallest type that holds them exactly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data_shards.sources.images.dicom.frames import Frame
from data_shards.sources.images.dicom.layout import Layout
from data_shards.sources.images.dicom.tables import lookup_table
from data_shards.support.errors import DataError

_INTEGERS = (np.dtype(np.uint8), np.dtype(np.int16), np.dtype(np.uint16))
_FLOAT = np.dtype(np.float32)


def real_values(stored: np.ndarray, frame: Frame, layout: Layout) -> tuple[np.ndarray, tuple[float, float] | None]:
    """Values of a grey frame after the modality lookup table, or after slope and intercept of this very frame.

    Args:
        stored: ``H,W`` as decoded.
        frame: whose transformation applies.
        layout: of the file.

    Returns:
        The values, and the two ends of the range which the stored bits can express, after the same transformation;
        no ends for float pixels.

    Raises:
        DataError: slope or intercept is no number, the slope is 0, or values are not finite.
    """
    table = lookup_table(frame.dataset, "ModalityLUTSequence")
    if table is not None:
        return fit(table(stored)), (0, (1 << table.bits) - 1)
    slope, intercept = (_one(frame, "RescaleSlope", 1.0), _one(frame, "RescaleIntercept", 0.0))
    if slope == 0:
        raise DataError("RescaleSlope is 0")
    ends = None if layout.floating else (layout.ends[0] * slope + intercept, layout.ends[1] * slope + intercept)
    if layout.floating or slope % 1 or intercept % 1:
        with np.errstate(over="ignore", invalid="ignore"):
            values = (stored * np.float64(slope) + np.float64(intercept)).astype(_FLOAT)
        if not np.isfinite(values).all():
            raise DataError("pixel values are not finite")
        return values, ends
    return _whole(stored, int(slope), int(intercept)), ends


def fit(values: np.ndarray) -> np.ndarray:
    """Whole numbers in the smallest of uint8, int16 and uint16 that holds them all, else in float32."""
    return values.astype(_smallest(int(values.min()), int(values.max())), copy=False)


def stack(planes: Sequence[np.ndarray]) -> np.ndarray:
    """Planes on a new first axis, in one type that holds all of them exactly; floats among them make it float32."""
    if any(plane.dtype.kind == "f" for plane in planes):
        return np.stack(planes, dtype=_FLOAT, casting="unsafe")
    dtype = _smallest(min(int(plane.min()) for plane in planes), max(int(plane.max()) for plane in planes))
    return np.stack(planes, dtype=dtype, casting="unsafe")


def mirror(values: np.ndarray, ends: tuple[float, float] | None) -> np.ndarray:
    """MONOCHROME1, where small values are bright, turned round: ``low + high - value``.

    Args:
        values: real values.
        ends: low and high, the values that the smallest and largest number of Bits Stored bits stand for. They depend
            on the header alone, so slices and images with equal headers are turned round alike.

    Raises:
        DataError: there are no ends, as for float pixels.
    """
    if ends is None:
        raise DataError("float pixels with MONOCHROME1 have no range to turn round")
    total = ends[0] + ends[1]
    if values.dtype.kind == "f" or total % 1 or abs(total) >= 1 << 53:
        return (np.float64(total) - values).astype(_FLOAT)
    return fit(int(total) - values.astype(np.int64))


def _whole(stored: np.ndarray, slope: int, intercept: int) -> np.ndarray:
    if slope == 1 and intercept == 0:
        return fit(stored)
    low, high = sorted(int(end) * slope + intercept for end in (stored.min(), stored.max()))
    if max(abs(low - intercept), abs(high - intercept), abs(low), abs(high)) >= 1 << 31:
        return (stored * np.float64(slope) + np.float64(intercept)).astype(_FLOAT)
    return (stored.astype(np.int32) * np.int32(slope) + np.int32(intercept)).astype(_smallest(low, high))


def _smallest(low: int, high: int) -> np.dtype:
    for dtype in _INTEGERS:
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return dtype
    return _FLOAT


def _one(frame: Frame, keyword: str, default: float) -> float:
    found = frame.numbers(keyword, 1)
    return default if found is None else found[0]
