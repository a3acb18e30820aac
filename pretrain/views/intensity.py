"""Brightness, contrast, gamma, colour, blur and noise of batches in [0, 1], each image by its own numbers."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pretrain.views.config import ViewConfig

DRAWS = 9


def adjust_intensity(images_BCHW: Tensor, u_BK: np.ndarray, config: ViewConfig) -> Tensor:
    """Contrast about the image mean, then brightness, channel gains and gamma; clamped to [0, 1]."""
    chosen = u_BK[:, 0] < config.intensity
    contrast = np.where(chosen, 1 + (2 * u_BK[:, 1] - 1) * config.contrast, 1.0)
    brightness = np.where(chosen, (2 * u_BK[:, 2] - 1) * config.brightness, 0.0)
    gamma = np.where(chosen, np.exp((2 * u_BK[:, 3] - 1) * math.log1p(config.gamma)), 1.0)
    column = [_column(values, images_BCHW) for values in (contrast, brightness, gamma)]
    # The mean of each image alone, so that the result does not depend on the company it is in. Rows first: torch
    # splits the sum of one large image between its threads, but not that of several, and rounds them differently.
    mean_B111 = images_BCHW.mean(dim=-1).flatten(1).mean(dim=1)[:, None, None, None]
    images_BCHW = (images_BCHW - mean_B111) * column[0] + mean_B111 + column[1]
    if images_BCHW.shape[1] > 1 and config.colour:
        gains = np.where(chosen[:, None], 1 + (2 * u_BK[:, 4:7] - 1) * config.colour, 1.0)
        gains = gains[:, np.arange(images_BCHW.shape[1]) % 3]
        images_BCHW = images_BCHW * torch.from_numpy(gains.astype(np.float32)).to(images_BCHW.device)[:, :, None, None]
    # Not pow: where torch cuts a batch for its threads, the last numbers of a piece are rounded in another way.
    return (images_BCHW.clamp(0, 1).log() * column[2]).exp()


def blur(images_BCHW: Tensor, u_BK: np.ndarray, config: ViewConfig) -> Tensor:
    """Gaussian blur of the images that are chosen, each with its own width."""
    chosen = np.flatnonzero(u_BK[:, 7] < config.blur)
    if not len(chosen):
        return images_BCHW
    sigma_px = 0.1 + (config.blur_sigma_px - 0.1) * u_BK[chosen, 8]
    radius = min(math.ceil(2.5 * config.blur_sigma_px), min(images_BCHW.shape[-2:]) - 1)
    taps = np.arange(-radius, radius + 1)
    kernel_BK = np.exp(-0.5 * (taps / sigma_px[:, None]) ** 2)
    kernel_BK /= kernel_BK.sum(axis=1, keepdims=True)
    weights = torch.from_numpy(kernel_BK.astype(np.float32)).to(images_BCHW.device)
    rows = torch.from_numpy(chosen).to(images_BCHW.device)
    blurred = images_BCHW[rows]
    for axis in (2, 3):
        blurred = _convolve_axis(blurred, weights, radius, axis)
    return images_BCHW.index_copy(0, rows, blurred)


def _convolve_axis(images_BCHW: Tensor, weights_BK: Tensor, radius: int, axis: int) -> Tensor:
    # A sum of shifted images, not a convolution: its rounding does not depend on how many images there are.
    sides = (0, 0, radius, radius) if axis == 2 else (radius, radius, 0, 0)
    padded = F.pad(images_BCHW, sides, mode="reflect")
    length = images_BCHW.shape[axis]
    total = torch.zeros_like(images_BCHW)
    for tap in range(2 * radius + 1):
        total += padded.narrow(axis, tap, length) * weights_BK[:, tap, None, None, None]
    return total


def add_noise(images_BCHW: Tensor, strength_B: np.ndarray, normals_BP: np.ndarray) -> Tensor:
    """Add Gaussian noise of each image's own strength; clamped to [0, 1]."""
    noise = torch.from_numpy(normals_BP).to(images_BCHW.device).view_as(images_BCHW)
    return (images_BCHW + noise * _column(strength_B, images_BCHW)).clamp(0, 1)


def _column(values_B: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(values_B.astype(np.float32)).to(like.device)[:, None, None, None]
