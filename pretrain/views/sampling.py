"""One resampling for all that moves pixels: affine maps are multiplied, displacements are added, then it is sampled."""

from __future__ import annotations

from collections.abc import Sequence

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


def sampling_grid(maps: Tensor, size: tuple[int, ...], displacement: Tensor | None = None) -> list[Tensor]:
    """Where each pixel of a view lies in the image: x, y and z, each ``B, H, W`` or ``B, D, H, W`` float32.

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
    grid = []
    for row in maps.unbind(1):
        *factors, total = (value.view(-1, *[1] * axes) for value in row.unbind(1))
        for factor, place in reversed(list(zip(factors, places, strict=True))):  # the smaller sums first
            total = total + factor * place
        grid.append(total)
    return grid


def sample(images: Tensor, grid: Sequence[Tensor], padding: str) -> Tensor:
    """Bilinear or trilinear samples of each image.

    Args:
        images: ``B,C,H,W`` or ``B,C,D,H,W``.
        grid: see :func:`sampling_grid`.
        padding: ``border`` repeats the edge, ``reflection`` mirrors.
    """
    if images.ndim == 5 and images.device.type == "cpu":
        return _trilinear(images, grid, padding)
    coordinates = torch.stack(list(grid), dim=-1)
    return F.grid_sample(images, coordinates, mode="bilinear", padding_mode=padding, align_corners=False)


def _trilinear(volumes_BCDHW: Tensor, grid: Sequence[Tensor], padding: str) -> Tensor:
    """Trilinear samples of volumes on a CPU, where torch has vector instructions for planes alone.

    Slices under each other are one high plane. It is sampled in the slice before each place and in the one behind it,
    and between both values it is linear. That takes half the time of grid_sample. Places are rounded as those of so
    high a plane are, to ``3e-8 * depth * height`` pixels: 1e-4 at 64^3, 2e-3 at 256^3, less than a level of 8 bits.
    """
    depth, height, width = volumes_BCDHW.shape[2:]
    x, y, z = grid
    below = _places(z, depth, padding).sub_(0.5)
    first = below.floor().clamp_(max=max(depth - 2, 0))
    share = below.sub_(first)
    rows = _places(y, height, padding).add_(first, alpha=height).mul_(2 / (depth * height)).sub_(1)
    plane = (len(volumes_BCDHW), depth * height, width)
    coordinates = torch.empty(*plane, 2)
    coordinates[..., 0], coordinates[..., 1] = x.reshape(plane), rows.view(plane)
    high = volumes_BCDHW.flatten(2, 3)
    before = F.grid_sample(high, coordinates, mode="bilinear", padding_mode=padding, align_corners=False)
    coordinates[..., 1] += 2 / depth
    behind = F.grid_sample(high, coordinates, mode="bilinear", padding_mode=padding, align_corners=False)
    return before.lerp_(behind, share.view(plane)[:, None]).view_as(volumes_BCDHW)


def _places(at: Tensor, length: int, padding: str) -> Tensor:
    """Pixels from the outer edge; no nearer to it than the centres of the outermost ones."""
    at = at + 1
    if padding == "reflection":  # Mirrors at 0 and 2 repeat every 4.
        at.sub_(at.mul(0.25).round_(), alpha=4).abs_()
    return at.mul_(length / 2).clamp_(0.5, length - 0.5)
