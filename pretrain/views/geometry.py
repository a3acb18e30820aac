"""Crop, rotation, shift and mirror as one affine map per image, sampled once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pretrain.views.config import ViewConfig

DRAWS = 9


@dataclass(frozen=True)
class Placement:
    """What a view shows of each image: lengths are fractions of half a side, x is along the width.

    Attributes:
        side_B: side of the crop before its aspect ratio.
        half_x_B: half its width.
        half_y_B: half its height.
        shift_x_B: where its centre lies.
        shift_y_B: where its centre lies.
        angle_B: rotation in radians.
        mirror_x_B: -1 where left and right are mirrored, else 1.
        mirror_y_B: -1 where top and bottom are mirrored, else 1.
    """

    side_B: np.ndarray
    half_x_B: np.ndarray
    half_y_B: np.ndarray
    shift_x_B: np.ndarray
    shift_y_B: np.ndarray
    angle_B: np.ndarray
    mirror_x_B: np.ndarray
    mirror_y_B: np.ndarray


def place(u_BK: np.ndarray, config: ViewConfig) -> Placement:
    """Draw what each view shows.

    The crop is that of Szegedy et al. (CVPR 2015) and of torchvision's RandomResizedCrop: an area and an aspect ratio
    are drawn, the place is uniform among those where the crop lies inside the image.

    Args:
        u_BK: uniform numbers, at least :data:`DRAWS` per image.
        config: ranges.
    """
    area = config.crop_scale_min + (config.crop_scale_max - config.crop_scale_min) * u_BK[:, 0]
    log_aspect = (2 * u_BK[:, 1] - 1) * math.log(config.crop_aspect)
    half_x = np.minimum(np.sqrt(area * np.exp(log_aspect)), 1.0)
    half_y = np.minimum(np.sqrt(area * np.exp(-log_aspect)), 1.0)
    return Placement(
        side_B=np.sqrt(area),
        half_x_B=half_x,
        half_y_B=half_y,
        shift_x_B=(2 * u_BK[:, 2] - 1) * (1 - half_x) + (2 * u_BK[:, 3] - 1) * 2 * config.translation,
        shift_y_B=(2 * u_BK[:, 4] - 1) * (1 - half_y) + (2 * u_BK[:, 5] - 1) * 2 * config.translation,
        angle_B=(2 * u_BK[:, 6] - 1) * math.radians(config.rotation_deg),
        mirror_x_B=np.where(u_BK[:, 7] < config.flip_horizontal, -1.0, 1.0),
        mirror_y_B=np.where(u_BK[:, 8] < config.flip_vertical, -1.0, 1.0),
    )


def affine_maps(u_BK: np.ndarray, config: ViewConfig, height: int, width: int) -> Tensor:
    """Maps from output to input coordinates, ``B, 2, 3``, for :func:`torch.nn.functional.affine_grid`.

    Args:
        u_BK: uniform numbers, at least :data:`DRAWS` per image.
        config: ranges.
        height: pixels along the first axis.
        width: pixels along the second axis.
    """
    drawn = place(u_BK, config)
    cos, sin = np.cos(drawn.angle_B), np.sin(drawn.angle_B)
    # Rotation is about pixels, which are not square in normalised coordinates when the image is not.
    maps = np.empty((len(u_BK), 2, 3))
    maps[:, 0, 0] = drawn.half_x_B * cos * drawn.mirror_x_B
    maps[:, 0, 1] = -drawn.half_x_B * sin * drawn.mirror_y_B * (height / width)
    maps[:, 0, 2] = drawn.shift_x_B
    maps[:, 1, 0] = drawn.half_y_B * sin * drawn.mirror_x_B * (width / height)
    maps[:, 1, 1] = drawn.half_y_B * cos * drawn.mirror_y_B
    maps[:, 1, 2] = drawn.shift_y_B
    return torch.from_numpy(maps.astype(np.float32))


def resample(images_BCHW: Tensor, maps_B23: Tensor, padding: str) -> Tensor:
    """Bilinear samples of each image along its own affine map, at the size it had."""
    grid = F.affine_grid(maps_B23, list(images_BCHW.shape), align_corners=False)
    return F.grid_sample(images_BCHW, grid, mode="bilinear", padding_mode=padding, align_corners=False)
