"""Crop, rotation, tilt, shift and mirror of volumes as one affine map per volume, sampled once."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pretrain.views.config import ViewConfig
from pretrain.views.geometry import DRAWS as PLANE_DRAWS
from pretrain.views.geometry import place

DRAWS = 6
"""Uniform numbers per volume beyond those of a plane."""


def volume_maps(
    u_BK: np.ndarray,
    config: ViewConfig,
    size: tuple[int, int, int],
    spacing_mm_BA: np.ndarray | None = None,
) -> Tensor:
    """Maps from output to input coordinates, ``B, 3, 4``, for :func:`torch.nn.functional.affine_grid`.

    Within the slices a volume is cropped, rotated, shifted and mirrored by the numbers of a plane. Its depth is cropped
    to the same share of its length as the sides of a slice, times an aspect ratio of its own, and the volume is tilted
    about both axes of the slice before it is rotated within it.

    Rotations are rigid in mm where the spacing of a volume is known, otherwise in voxels.

    Args:
        u_BK: uniform numbers, for each volume :data:`~pretrain.views.geometry.DRAWS` and then :data:`DRAWS`.
        config: ranges.
        size: voxels along depth, height and width.
        spacing_mm_BA: distance of voxels along the same axes; a row with a NaN counts as unknown.
    """
    depth, height, width = size
    slices, u_BK = place(u_BK, config), u_BK[:, PLANE_DRAWS:]
    half_B = np.minimum(slices.side_B * np.exp((2 * u_BK[:, 0] - 1) * math.log(config.crop_aspect)), 1.0)
    shift_B = (2 * u_BK[:, 1] - 1) * (1 - half_B) + (2 * u_BK[:, 2] - 1) * 2 * config.translation
    tilt_x_B, tilt_y_B = ((2 * u_BK[:, draw] - 1) * math.radians(config.tilt_deg) for draw in (3, 4))
    mirror_B = np.where(u_BK[:, 5] < config.flip_depth, -1.0, 1.0)
    half_BA = np.stack([slices.half_x_B, slices.half_y_B, half_B], axis=1)
    mirror_BA = np.stack([slices.mirror_x_B, slices.mirror_y_B, mirror_B], axis=1)
    rotation = _turned(0, 1, slices.angle_B) @ _turned(1, 2, tilt_x_B) @ _turned(0, 2, tilt_y_B)
    extent_BA = _extents((width, height, depth), spacing_mm_BA, len(u_BK))
    maps = np.empty((len(u_BK), 3, 4))
    maps[:, :, :3] = rotation * (half_BA / extent_BA)[:, :, None] * (extent_BA * mirror_BA)[:, None]
    maps[:, :, 3] = np.stack([slices.shift_x_B, slices.shift_y_B, shift_B], axis=1)
    return torch.from_numpy(maps.astype(np.float32))


def _turned(first: int, second: int, angle_B: np.ndarray) -> np.ndarray:
    """Rotations ``B, 3, 3`` in the plane of two axes, from the first to the second."""
    found = np.broadcast_to(np.eye(3), (len(angle_B), 3, 3)).copy()
    found[:, first, first] = found[:, second, second] = np.cos(angle_B)
    found[:, second, first] = np.sin(angle_B)
    found[:, first, second] = -np.sin(angle_B)
    return found


def _extents(counts: tuple[int, int, int], spacing_mm_BA: np.ndarray | None, rows: int) -> np.ndarray:
    """Lengths ``B, 3`` along width, height and depth: in mm where the spacing is known, else in voxels."""
    found = np.broadcast_to(np.array(counts, dtype=np.float64), (rows, 3)).copy()
    if spacing_mm_BA is not None:
        known_B = (np.isfinite(spacing_mm_BA) & (spacing_mm_BA > 0)).all(axis=1)
        found[known_B] *= spacing_mm_BA[known_B, ::-1]
    return found


def resample_volumes(volumes_BCDHW: Tensor, maps_B34: Tensor, padding: str) -> Tensor:
    """Trilinear samples of each volume along its own affine map, at the size it had."""
    depth, height, width = volumes_BCDHW.shape[2:]
    device = volumes_BCDHW.device
    z, y, x = ((2 * torch.arange(count, device=device) + 1) / count - 1 for count in (depth, height, width))
    # Sums of products, not a product of matrices: its rounding may depend on how many there are.
    grid = [
        row[:, 0, None, None, None] * x
        + row[:, 1, None, None, None] * y[:, None]
        + row[:, 2, None, None, None] * z[:, None, None]
        + row[:, 3, None, None, None]
        for row in maps_B34.unbind(1)
    ]
    return F.grid_sample(
        volumes_BCDHW, torch.stack(grid, dim=-1), mode="bilinear", padding_mode=padding, align_corners=False
    )


def slices(volumes_BCDHW: Tensor, u_B: np.ndarray) -> Tensor:
    """One slice of each volume, ``B, C, H, W``, evenly drawn from the middle half of its depth.

    Args:
        volumes_BCDHW: volumes.
        u_B: a uniform number for each.
    """
    depth = volumes_BCDHW.shape[2]
    index_B = torch.from_numpy(np.floor(depth * (0.25 + 0.5 * u_B)).astype(np.int64)).to(volumes_BCDHW.device)
    return volumes_BCDHW[torch.arange(len(index_B), device=index_B.device), :, index_B]
