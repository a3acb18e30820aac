"""Crop, rotation, shift and mirror as one affine map per image, sampled once."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pretrain.views.config import ViewConfig

DRAWS = 9


def affine_maps(u_BK: np.ndarray, config: ViewConfig, height: int, width: int) -> Tensor:
    """Maps from output to input coordinates, ``B, 2, 3``, for :func:`torch.nn.functional.affine_grid`.

    The crop is that of Szegedy et al. (CVPR 2015) and of torchvision's RandomResizedCrop: an area and an aspect ratio
    are drawn, the place is uniform among those where the crop lies inside the image.

    Args:
        u_BK: uniform numbers, at least :data:`DRAWS` per image.
        config: ranges.
        height: pixels along the first axis.
        width: pixels along the second axis.
    """
    area = config.crop_scale_min + (1 - config.crop_scale_min) * u_BK[:, 0]
    log_aspect = (2 * u_BK[:, 1] - 1) * math.log(config.crop_aspect)
    half_width = np.minimum(np.sqrt(area * np.exp(log_aspect)), 1.0)
    half_height = np.minimum(np.sqrt(area * np.exp(-log_aspect)), 1.0)
    shift_x = (2 * u_BK[:, 2] - 1) * (1 - half_width) + (2 * u_BK[:, 3] - 1) * 2 * config.translation
    shift_y = (2 * u_BK[:, 4] - 1) * (1 - half_height) + (2 * u_BK[:, 5] - 1) * 2 * config.translation
    angle = (2 * u_BK[:, 6] - 1) * math.radians(config.rotation_deg)
    mirror_x = np.where(u_BK[:, 7] < config.flip_horizontal, -1.0, 1.0)
    mirror_y = np.where(u_BK[:, 8] < config.flip_vertical, -1.0, 1.0)
    cos, sin = np.cos(angle), np.sin(angle)
    # Rotation is about pixels, which are not square in normalised coordinates when the image is not.
    maps = np.empty((len(u_BK), 2, 3))
    maps[:, 0, 0] = half_width * cos * mirror_x
    maps[:, 0, 1] = -half_width * sin * mirror_y * (height / width)
    maps[:, 0, 2] = shift_x
    maps[:, 1, 0] = half_height * sin * mirror_x * (width / height)
    maps[:, 1, 1] = half_height * cos * mirror_y
    maps[:, 1, 2] = shift_y
    return torch.from_numpy(maps.astype(np.float32))


def resample(images_BCHW: Tensor, maps_B23: Tensor, padding: str) -> Tensor:
    """Bilinear samples of each image along its own affine map, at the size it had."""
    grid = F.affine_grid(maps_B23, list(images_BCHW.shape), align_corners=False)
    return F.grid_sample(images_BCHW, grid, mode="bilinear", padding_mode=padding, align_corners=False)
