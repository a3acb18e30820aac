"""Smooth random fields: uniform cubic B-splines between few random numbers."""

from __future__ import annotations

import torch
from torch import Tensor


def control_points(intervals: int) -> int:
    """How many along an axis that is cut into so many intervals."""
    return intervals + 3


def smooth_field(points: Tensor, size: tuple[int, ...], intervals: int) -> Tensor:
    """The spline of each set of control points at the centres of pixels, ``B, C, *size`` float32.

    Its values lie between the least and the greatest of its control points. It is computed axis by axis as sums of
    products, not as a product of matrices, whose rounding may depend on how many there are.

    Args:
        points: ``B, C`` and for each axis :func:`control_points` of ``intervals``.
        size: pixels along each of these axes.
        intervals: into which each axis is cut.
    """
    field = points.to(torch.float32)
    for axis, length in enumerate(size, start=2):
        weights_LK = _basis(length, intervals, field.device)
        behind = [1] * (field.ndim - axis - 1)
        total = torch.zeros((), device=field.device)
        for number in range(control_points(intervals)):
            total = total + field.narrow(axis, number, 1) * weights_LK[:, number].view(-1, *behind)
        field = total
    return field


def _basis(length: int, intervals: int, device: torch.device) -> Tensor:
    """Weight of each control point at each pixel, ``L, K``; they sum to 1 (de Boor, 1978)."""
    at = (torch.arange(length, device=device) + 0.5) * (intervals / length)
    distance = (at[:, None] - (torch.arange(control_points(intervals), device=device) - 1)).abs()
    near = 2 / 3 - distance.square() + distance**3 / 2
    return torch.where(distance < 1, near, (2 - distance).clamp(min=0) ** 3 / 6)
