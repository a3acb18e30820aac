"""What stands where a part of an image is taken away: the image blurred, its mean, or its lowest value."""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy.ndimage import gaussian_filter

from data_shards.sample import Image

Baseline = Literal["mean", "blur", "zero"]

_BLUR = 2
"""The blurred image has a standard deviation of a block divided by this: nothing of its size is left."""


def baseline(image: Image, kind: Baseline, block: int) -> np.ndarray:
    """The image without what is of the size of a block, ``C,...`` in the dtype of its pixels.

    Args:
        image: uint8, or as it was measured.
        kind: the mean of each channel, the image blurred, or the lowest value of each channel.
        block: voxels along each axis.
    """
    pixels = image.pixels
    axes = tuple(range(1, pixels.ndim))
    if kind == "zero":
        return np.broadcast_to(pixels.min(axis=axes, keepdims=True), pixels.shape)
    values = pixels.astype(np.float64)
    if kind == "blur":
        sigma = (0.0, *[block / _BLUR] * (pixels.ndim - 1))
        return in_dtype(gaussian_filter(values, sigma, mode="nearest"), pixels.dtype)
    return np.broadcast_to(in_dtype(values.mean(axis=axes, keepdims=True), pixels.dtype), pixels.shape)


def in_dtype(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Floats as values of an image of that dtype: rounded where it holds integers."""
    return values.astype(dtype) if dtype.kind == "f" else np.rint(values).astype(dtype)
