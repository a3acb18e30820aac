"""Affine maps of coordinates, ``B, A, A + 1`` float64: what moves are made of."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# Sums of products throughout, not products of matrices: their rounding may depend on how many there are.


def diagonal(scale_BA: Tensor, offset_BA: Tensor | None = None) -> Tensor:
    """Each axis by its own factor, and moved."""
    offset_BA = torch.zeros_like(scale_BA) if offset_BA is None else offset_BA
    return torch.cat([torch.diag_embed(scale_BA), offset_BA[:, :, None]], dim=2)


def turned(axes: int, first: int, second: int, angle_B: Tensor) -> Tensor:
    """A rotation about the centre, in the plane of two axes from the first to the second.

    Args:
        axes: how many there are.
        first: an axis, 0 for x.
        second: another.
        angle_B: in radians.
    """
    cos, sin, nought, one = angle_B.cos(), angle_B.sin(), torch.zeros_like(angle_B), torch.ones_like(angle_B)
    entries = {(first, first): cos, (second, second): cos, (second, first): sin, (first, second): -sin}
    rows = [
        torch.stack([entries.get((row, place), one if row == place else nought) for place in range(axes + 1)], dim=1)
        for row in range(axes)
    ]
    return torch.stack(rows, dim=1)


def composed(maps: Sequence[Tensor]) -> Tensor:
    """The map that applies the last of one or more maps first."""
    found = maps[0]
    for inner in maps[1:]:
        axes = found.shape[1]
        products = torch.zeros_like(found)
        for k in range(axes):
            products = products + found[:, :, k, None] * inner[:, None, k]
        found = torch.cat([products[..., :axes], products[..., axes:] + found[..., axes:]], dim=2)
    return found
