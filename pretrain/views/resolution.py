"""Views of fewer pixels, and views that are one slice of a volume."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def coarsen(images: Tensor, factor: float) -> Tensor:
    """The same extent in pixels or voxels that are ``factor`` times as long, each the average of what it covers.

    Where ``factor`` does not divide an axis, it becomes ``ceil(size / factor)`` long and its pixels a little shorter.
    """
    size = tuple(math.ceil(length / factor) for length in images.shape[2:])
    if size == tuple(images.shape[2:]):
        return images
    return F.interpolate(images, size=size, mode="area")


def slices(volumes_BCDHW: Tensor, u_B: Tensor) -> Tensor:
    """One slice of each volume, ``B, C, H, W``, evenly drawn from the middle half of its depth.

    Args:
        volumes_BCDHW: volumes.
        u_B: a uniform number for each.
    """
    index_B = (volumes_BCDHW.shape[2] * (0.25 + 0.5 * u_B)).floor().long()
    return volumes_BCDHW[torch.arange(len(index_B), device=index_B.device), :, index_B]
