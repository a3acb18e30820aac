"""Tokens of a grid averaged over cells that are larger by a factor, and back.

Shape suffixes: B cases, T tokens, D channels, C cells. A case may have the grids of several studies one after another.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor


def cells_of(grid: tuple[int, ...], factor: int) -> tuple[int, ...]:
    """How many cells there are along each axis; the last one is smaller where the factor does not divide."""
    return tuple(math.ceil(length / factor) for length in grid)


def averaged(tokens_BTD: Tensor, grid: tuple[int, ...], factor: int) -> Tensor:
    """The mean of the tokens of each cell, ``(B, C, D)``."""
    if factor == 1:
        return tokens_BTD
    maps = tokens_BTD.unflatten(1, (-1, *grid)).flatten(0, 1).movedim(-1, 1)
    sides = tuple(min(factor, length) for length in grid)
    pool = F.avg_pool2d if len(grid) == 2 else F.avg_pool3d
    pooled = pool(maps, sides, ceil_mode=True, count_include_pad=False)
    return pooled.flatten(2).transpose(1, 2).unflatten(0, (len(tokens_BTD), -1)).flatten(1, 2)


def spread(values_BCK: Tensor, grid: tuple[int, ...], factor: int) -> Tensor:
    """The value of its cell at each token, ``(B, T, K)``."""
    if factor == 1:
        return values_BCK
    maps = values_BCK.unflatten(1, (-1, *cells_of(grid, factor)))
    for axis, length in enumerate(grid, start=2):
        maps = maps.repeat_interleave(min(factor, length), dim=axis).narrow(axis, 0, length)
    return maps.flatten(1, -2)
