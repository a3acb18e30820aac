"""Does a map point at what it should? Two scores against a mask, and what a map scores that has not seen the image."""

from __future__ import annotations

import numpy as np

from data_shards.support.errors import DataError


def hit(values: np.ndarray, mask: np.ndarray) -> float:
    """The pointing game: 1 where the largest value lies in the mask, else 0; of equal largest values their share.

    Zhang et al., Top-down neural attention by excitation backprop, ECCV 2016, section 4.2, without a tolerance around
    the mask.

    Args:
        values: a map.
        mask: bool, of the same shape.

    Raises:
        DataError: the shapes differ, or the mask is empty.
    """
    mask = _checked(values, mask)
    return float(mask[values == values.max()].mean())


def mass(values: np.ndarray, mask: np.ndarray) -> float:
    """The share of what is positive in the map that lies in the mask; that of an empty map is the share of the area.

    The energy-based pointing game of Wang et al., Score-CAM, CVPR workshops 2020, section 4.2.

    Args:
        values: a map.
        mask: bool, of the same shape.

    Raises:
        DataError: as for :func:`hit`.
    """
    mask = _checked(values, mask)
    positive = np.maximum(values.astype(np.float64), 0)
    total = positive.sum()
    return float(positive[mask].sum() / total) if total > 0 else chance(mask)


def chance(mask: np.ndarray) -> float:
    """What a random map scores in both: the share of the mask in the image.

    The largest of values that are drawn alike for all voxels lies in each of them as often; and each has the same mean.
    """
    return float(mask.mean())


def centre_prior(shape: tuple[int, ...]) -> np.ndarray:
    """A Gaussian around the middle with a standard deviation of a quarter of each axis: where things usually are."""
    found = np.ones(())
    for length in shape:
        away = (np.arange(length) - (length - 1) / 2) / (length / 4)
        found = np.multiply.outer(found, np.exp(-0.5 * away**2))
    return found


def _checked(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    if values.shape != mask.shape or not mask.any():
        raise DataError(f"a map of shape {values.shape} and a mask of shape {mask.shape} with {int(mask.sum())} voxels")
    return mask.astype(bool)
