"""Stored values as what views and corruptions act on, and back, for images that are to be stored again."""

from __future__ import annotations

import numpy as np

from data_shards.intensity import BYTES, Rule, Windows

Ends = tuple[float, float]


def value_range(pixels: np.ndarray, rule: Rule) -> Ends:
    """The values that count as black and white: of 8 bits 0 and 255, of windows their ends, else those of the image.

    Args:
        pixels: finite values of any shape.
        rule: how they are read.
    """
    if rule == BYTES:
        return 0.0, 255.0
    if isinstance(rule, Windows):
        return min(window.low for window in rule.windows), max(window.high for window in rule.windows)
    return float(pixels.min()), float(pixels.max())


def stored_again(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Values in the units of an image in its dtype: rounded for integers, and held inside what it can hold.

    Args:
        values: floats of any shape; a window may reach beyond what can be stored.
        dtype: of the image.
    """
    if dtype.kind == "f":
        return values.clip(np.finfo(dtype).min, np.finfo(dtype).max).astype(dtype)
    return np.rint(values).clip(np.iinfo(dtype).min, np.iinfo(dtype).max).astype(dtype)
