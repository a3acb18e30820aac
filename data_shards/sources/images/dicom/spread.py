"""Slices at uneven distances, interpolated onto a regular grid along their axis alone."""

from __future__ import annotations

import numpy as np

from data_shards.support.limits import check_size


def resampled(pixels: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Planes between planes, linear between the two neighbours; whole numbers are rounded to the nearest.

    Args:
        pixels: ``C,D,H,W`` of any dtype.
        places: of the new planes in numbers of the old, rising from 0 to ``D - 1``.

    Returns:
        ``C,len(places),H,W`` of the same dtype.

    Raises:
        DataError: the result is too large.
    """
    channels, depth, *plane = pixels.shape
    check_size((channels, len(places), *plane), pixels.dtype, "the volume on a regular grid")
    result = np.empty((channels, len(places), *plane), pixels.dtype)
    below = np.minimum(places.astype(np.int64), depth - 2)
    for number, (first, part) in enumerate(zip(below.tolist(), (places - below).tolist(), strict=True)):
        between = (1 - part) * pixels[:, first] + part * pixels[:, first + 1]  # a plane at a time, in float
        result[:, number] = np.rint(between) if pixels.dtype.kind in "iu" else between
    return result
