"""Random numbers that an objective draws for itself: functions of the keys of a view, on any number of ranks."""

from __future__ import annotations

import numpy as np

from pretrain.views.counter_rng import normals, uniforms

_ODD = np.uint64(0xD1342543DE82EF95)


def derived_keys(keys_B: np.ndarray, purpose: int) -> np.ndarray:
    """Keys for another purpose than the pixels of the view; distinct purposes give numbers unrelated to each other.

    Args:
        keys_B: of the view.
        purpose: a number of its own for everything that is drawn, above 0.
    """
    with np.errstate(over="ignore"):
        return keys_B ^ (np.uint64(purpose) * _ODD)


def uniforms_of(keys_B: np.ndarray, count: int) -> np.ndarray:
    """``count`` numbers in [0, 1) for each key, ``B, count`` float64."""
    return uniforms(keys_B, count)


def normals_of(keys_B: np.ndarray, count: int) -> np.ndarray:
    """``count`` standard normal numbers for each key, ``B, count`` float32."""
    return normals(keys_B, count)
