"""One resampling for all that moves pixels: affine maps are multiplied, displacements are added, then it is sampled."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pretrain.views.transforms import Frame

# Sums of products throughout, not products of matrices: their rounding may depend on how many there are.


def frame_of(images: Tensor, spacing_mm_BA: Tensor | None) -> Frame:
    """Sizes and lengths of images.

    Args:
        images: ``B,C,H,W`` or ``B,C,D,H,W``.
        spacing_mm_BA: distance of pixels along H,W or D,H,W; a row in which one is no length above 0 (NaN, 0) counts as
            unknown, and its lengths are in pixels. None where nothing is known.
    """
    size = tuple(reversed(images.shape[2:]))
    lengths = [torch.full((len(images), 1), n, dtype=torch.float64, device=images.device) for n in size]
    extent_BA = torch.cat(lengths, dim=1)
    if spacing_mm_BA is not None:
        known_B1 = (spacing_mm_BA.isfinite() & (spacing_mm_BA > 0)).all(dim=1, keepdim=True)
        extent_BA = torch.where(known_B1, extent_BA * spacing_mm_BA.to(torch.float64).flip(1), extent_BA)
    return Frame(size, extent_BA)


def sampling_grid(maps: Tensor, size: tuple[int, ...], displacement: Tensor | None = None) -> Tensor:
    """Where each pixel of a view lies in the image, ``B, H, W, 2`` or ``B, D, H, W, 3`` float32: x, y and z.

    Args:
        maps: ``B, A, A + 1``.
        size: pixels along H,W or D,H,W.
        displacement: ``B, A, *size``, added to the coordinates of the view before the maps are applied.
    """
    maps, axes = maps.to(torch.float32), len(size)
    places: list[Tensor] = []
    for axis, length in enumerate(reversed(size)):
        at = (2 * torch.arange(length, device=maps.device) + 1) / length - 1
        at = at.view(-1, *[1] * axis)
        places.append(at if displacement is None else displacement[:, axis] + at)
    grid = torch.empty(len(maps), *size, axes, device=maps.device)
    for axis, row in enumerate(maps.unbind(1)):
        *factors, total = (value.view(-1, *[1] * axes) for value in row.unbind(1))
        for factor, place in reversed(list(zip(factors[1:], places[1:], strict=True))):  # the smaller sums first
            total = total + factor * place
        grid[..., axis] = total + factors[0] * places[0]
    return grid


def sample(images: Tensor, grid: Tensor, padding: str) -> Tensor:
    """Bilinear or trilinear samples of each image.

    Args:
        images: ``B,C,H,W`` or ``B,C,D,H,W``.
        grid: see :func:`sampling_grid`.
        padding: ``border`` repeats the edge, ``reflection`` mirrors.
    """
    if padding == "reflection" and images.ndim == 5:
        # As torch does it, which takes as long as all the rest where volumes are sampled on a CPU.
        grid, padding = mirrored(grid), "border"
    return F.grid_sample(images, grid, mode="bilinear", padding_mode=padding, align_corners=False)


def mirrored(coordinates: Tensor) -> Tensor:
    """Coordinates beyond -1 and 1 brought back as mirrors at both do it; those between stay the same to the bit."""
    # Mirrors at both ends repeat every 4; between -2 and 2 what lies beyond 1 is 2 - x.
    near = coordinates - 4 * (coordinates / 4).round_()
    return near.clamp(-1, 1).mul_(2).sub_(near)
