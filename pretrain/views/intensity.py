"""Brightness, contrast, gamma, colour, blur and noise of batches in [0, 1], each image by its own numbers.

Images are planes ``B,C,H,W`` or volumes ``B,C,D,H,W``; nothing below depends on which, but for the number of axes.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pretrain.views.config import ViewConfig

DRAWS = 9


def adjust_intensity(images: Tensor, u_BK: np.ndarray, config: ViewConfig) -> Tensor:
    """Contrast about the image mean, then brightness, channel gains and gamma; clamped to [0, 1]."""
    chosen = u_BK[:, 0] < config.intensity
    contrast = np.where(chosen, 1 + (2 * u_BK[:, 1] - 1) * config.contrast, 1.0)
    brightness = np.where(chosen, (2 * u_BK[:, 2] - 1) * config.brightness, 0.0)
    gamma = np.where(chosen, np.exp((2 * u_BK[:, 3] - 1) * math.log1p(config.gamma)), 1.0)
    column = [_column(values, images) for values in (contrast, brightness, gamma)]
    # The mean of each image alone, so that the result does not depend on the company it is in. Rows first: torch
    # splits the sum of one large image between its threads, but not that of several, and rounds them differently.
    rows = images.mean(dim=-1)
    mean_B = (rows.mean(dim=-1) if images.ndim == 5 else rows).flatten(1).mean(dim=1)
    mean = mean_B.view(-1, *[1] * (images.ndim - 1))
    images = (images - mean) * column[0] + mean + column[1]
    if images.shape[1] > 1 and config.colour:
        gains = np.where(chosen[:, None], 1 + (2 * u_BK[:, 4:7] - 1) * config.colour, 1.0)
        gains_BC = torch.from_numpy(gains[:, np.arange(images.shape[1]) % 3].astype(np.float32)).to(images.device)
        images = images * gains_BC.view(*gains_BC.shape, *[1] * (images.ndim - 2))
    # Not pow: where torch cuts a batch for its threads, the last numbers of a piece are rounded in another way.
    return (images.clamp(0, 1).log() * column[2]).exp()


def blur(images: Tensor, u_BK: np.ndarray, config: ViewConfig) -> Tensor:
    """Gaussian blur along every axis of the images that are chosen, each with its own width."""
    chosen = np.flatnonzero(u_BK[:, 7] < config.blur)
    if not len(chosen):
        return images
    sigma_px = 0.1 + (config.blur_sigma_px - 0.1) * u_BK[chosen, 8]
    reach = math.ceil(2.5 * config.blur_sigma_px)
    # An axis of a volume may be much shorter than the others, and does not shorten their kernels.
    shortest = min(images.shape[-2:]) if images.ndim == 4 else None
    rows = torch.from_numpy(chosen).to(images.device)
    blurred = images[rows]
    for axis in range(2, images.ndim):
        radius = min(reach, (shortest or images.shape[axis]) - 1)
        weights_BK = torch.from_numpy(_gaussian(sigma_px, radius).astype(np.float32)).to(images.device)
        blurred = _convolve_axis(blurred, weights_BK, radius, axis)
    return images.index_copy(0, rows, blurred)


def _gaussian(sigma_px: np.ndarray, radius: int) -> np.ndarray:
    """Kernels ``B, 2 * radius + 1`` whose sum is 1."""
    kernel_BK = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma_px[:, None]) ** 2)
    weights_BK: np.ndarray = kernel_BK / kernel_BK.sum(axis=1, keepdims=True)
    return weights_BK


def _convolve_axis(images: Tensor, weights_BK: Tensor, radius: int, axis: int) -> Tensor:
    # A sum of shifted images, not a convolution: its rounding does not depend on how many images there are.
    last = images.ndim - 1
    sides = [0, 0] * (last - axis) + [radius, radius] + [0, 0] * (axis - 2)  # F.pad begins with the last axis.
    padded = F.pad(images, sides, mode="reflect")
    length = images.shape[axis]
    total = torch.zeros_like(images)
    for tap in range(2 * radius + 1):
        total += padded.narrow(axis, tap, length) * weights_BK[:, tap].view(-1, *[1] * (images.ndim - 1))
    return total


def add_noise(images: Tensor, strength_B: np.ndarray, normals_BP: np.ndarray) -> Tensor:
    """Add Gaussian noise of each image's own strength; clamped to [0, 1]."""
    noise = torch.from_numpy(normals_BP).to(images.device).view_as(images)
    return (images + noise * _column(strength_B, images)).clamp(0, 1)


def _column(values_B: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(values_B.astype(np.float32)).to(like.device).view(-1, *[1] * (like.ndim - 1))
