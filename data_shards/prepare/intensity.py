"""Values to 8 bits."""

from __future__ import annotations

import math

import numpy as np

from data_shards.prepare.document import Intensity
from data_shards.support.errors import DataError

_PIECE_VALUES = 1 << 20


Ends = tuple[float, float]


def ends_of(pixels: np.ndarray, intensity: Intensity) -> Ends | None:
    """The values that become 0 and 255; None when values stay as they are.

    A window runs from center - width / 2 to center + width / 2 (the LINEAR_EXACT function of DICOM PS3.3
    C.11.2.1.3.2).

    Args:
        pixels: finite values of any dtype and shape.
        intensity: how the ends are found.
    """
    if intensity.window is not None:
        center, width = intensity.window
        return center - width / 2, center + width / 2
    if intensity.percentile is not None:
        return percentiles(pixels, intensity.percentile)
    return None


def to_8_bits(pixels: np.ndarray, ends: Ends) -> np.ndarray:
    """Linear from the low to the high end to 0 to 255, rounded; beyond the ends 0 and 255.

    Where both ends are one value, as in a constant image, only what is above it becomes 255.

    Args:
        pixels: finite values of any dtype and shape.
        ends: low and high, as :func:`ends_of` finds them.

    Returns:
        uint8 of the same shape.

    Raises:
        DataError: the ends are so far apart that their distance is no float64.
    """
    low, high = ends
    span = high - low
    if not math.isfinite(span):
        raise DataError(f"values from {low:g} to {high:g} are too far apart for 8 bits")
    result = np.empty(pixels.shape, np.uint8)
    flat, target = pixels.reshape(-1), result.reshape(-1)
    for start in range(0, flat.size, _PIECE_VALUES):  # so that no float64 copy of a whole volume is held
        part = slice(start, start + _PIECE_VALUES)
        values = flat[part].astype(np.float64)
        shares = (np.clip(values, low, high) - low) / span if span > 0 else values > high
        target[part] = np.rint(shares * 255.0)
    return result


def percentiles(pixels: np.ndarray, percents: tuple[float, float]) -> Ends:
    """Percentiles of all values, linear between neighbours in the sorted order, in float64 for every dtype.

    ``numpy.percentile`` interpolates in the dtype of the values, where the distance of two float16 can overflow.
    """
    places = [(pixels.size - 1) * percent / 100 for percent in percents]
    below = [math.floor(place) for place in places]
    above = [min(number + 1, pixels.size - 1) for number in below]
    ordered = np.partition(pixels.reshape(-1), sorted({*below, *above}))
    low, high = (
        (1 - (place - before)) * float(ordered[before]) + (place - before) * float(ordered[after])
        for place, before, after in zip(places, below, above, strict=True)
    )
    return low, high
