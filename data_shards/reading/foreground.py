"""A voxel of the foreground of a volume, found in a few of its planes: the rest of the volume is not read for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from data_shards.intensity import Threshold
from data_shards.order.places import below
from data_shards.reading.box import Box

PLANES, ROUNDS = 4, 4
"""So many planes are looked at together, spread over the volume, and so often if there is no foreground in them."""
NUMBERS = PLANES * ROUNDS + 1
"""How many random numbers it takes to find one."""


def foreground_voxel(
    read: Callable[[Box], np.ndarray], size: Sequence[int], foreground: Threshold, share_K: np.ndarray
) -> tuple[int, ...] | None:
    """One of the foreground voxels of some planes, each as likely as the others.

    The planes lie across the first axis, one at a random place in each quarter of it. A voxel is foreground where any
    channel is above the threshold; where that is the mean, it is the mean of these planes.

    Args:
        read: gives the voxels ``C, *size`` of a box.
        size: voxels of the image along D,H,W or H,W.
        foreground: a threshold in the units of the image, or ``mean``.
        share_K: :data:`NUMBERS` random numbers from 0 to below 1.

    Returns:
        Its place along each axis; None where no plane that was looked at has any.
    """
    for number in range(ROUNDS):
        share_P = share_K[number * PLANES : (number + 1) * PLANES]
        plane_P = np.unique(below((np.arange(PLANES) + share_P) / PLANES, size[0]))
        rest = tuple(size[1:])
        boxes = [Box((plane, *(0 for _ in rest)), (1, *rest)) for plane in plane_P.tolist()]
        found = np.flatnonzero(_is_foreground(np.concatenate([read(box) for box in boxes], axis=1), foreground))
        if found.size:
            chosen = found[below(share_K[-1:], found.size)[0]]
            place, *others = np.unravel_index(int(chosen), (len(plane_P), *rest))
            return int(plane_P[place]), *(int(other) for other in others)
    return None


def _is_foreground(voxels: np.ndarray, foreground: Threshold) -> np.ndarray:
    """``C, ...`` to bool ``...``."""
    threshold = voxels.mean(dtype=np.float64) if foreground == "mean" else foreground
    above: np.ndarray = np.any(voxels > threshold, axis=0)
    return above
