"""Patches of an image of which a network reads only some."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pretrain.backbone.position import Grid


@dataclass(frozen=True)
class Visible:
    """Which patches are read; the others are dropped before the stem, so no pixel of theirs is seen, and none costs.

    A patch is a cube of tokens. The stem sees each patch alone, as if it were an image, so that what it makes of one
    does not depend on the pixels beside it.

    Attributes:
        patch_BP: numbers of the patches that are read, in row-major order of the grid of patches, int64; as many of
            each image.
        cells: tokens along each side of a patch.
    """

    patch_BP: Tensor
    cells: int


def patch_grid(size: tuple[int, ...], side: int) -> tuple[int, ...]:
    """Patches of ``side`` voxels along each axis; the last ones may reach beyond the image."""
    return tuple(-(-length // side) for length in size)


def padded_grid(size: tuple[int, ...], stride: int, offset: float, cells: int) -> Grid:
    """The grid of tokens of whole patches, with the places that the tokens of the image itself have."""
    patches = patch_grid(size, stride * cells)
    return Grid(tuple(count * cells for count in patches), size, stride, offset)


def cut(images: Tensor, side: int) -> Tensor:
    """All patches ``B, P, C`` and ``side`` along each axis, of images that are continued by their last voxels."""
    axes = images.ndim - 2
    missing = [(-size) % side for size in reversed(images.shape[2:])]
    if any(missing):
        images = F.pad(images, [end for size in missing for end in (0, size)], mode="replicate")
    for axis in range(axes):  # each axis becomes its patches, and its places within a patch as a new last axis
        images = images.unfold(2 + axis, side, side)
    # B, C, patches..., places... to B, patches..., C, places...
    return images.movedim(1, 1 + axes).flatten(1, axes)


def cut_visible(images: Tensor, visible: Visible, stride: int) -> Tensor:
    """The patches that are read, as images ``B * P, C`` and the side of a patch along each axis."""
    patches = cut(images, visible.cells * stride)
    rows_B1 = torch.arange(len(patches), device=patches.device)[:, None]
    return patches[rows_B1, visible.patch_BP].flatten(0, 1)


def cells_of(patch_BP: Tensor, grid: Grid, cells: int) -> Tensor:
    """The tokens of patches, ``B, P * cells^A``: numbers in row-major order of ``grid``, patch by patch."""
    device = patch_BP.device
    numbers = torch.arange(math.prod(grid.cells), device=device).view(1, 1, *grid.cells)
    table_PC = cut(numbers, cells).flatten(1).view(-1, cells ** len(grid.cells))
    return table_PC[patch_BP].flatten(1)


def within(cells_BQ: Tensor, padded: Grid, grid: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Tokens of whole patches as tokens of the image itself.

    Args:
        cells_BQ: numbers in row-major order of ``padded``.
        padded: of whole patches.
        grid: tokens of the image along each axis, none more than those of ``padded``.

    Returns:
        Numbers in row-major order of ``grid``, and whether each lies in the image; the number of one that does not is
        that of the nearest that does.
    """
    places = torch.unravel_index(cells_BQ, padded.cells)
    number_BQ, inside_BQ = torch.zeros_like(cells_BQ), torch.ones_like(cells_BQ, dtype=torch.bool)
    for place_BQ, length in zip(places, grid, strict=True):
        inside_BQ = inside_BQ & (place_BQ < length)
        number_BQ = number_BQ * length + place_BQ.clamp(max=length - 1)
    return number_BQ, inside_BQ
