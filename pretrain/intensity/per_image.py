"""Rules that look at the values of each image: percentiles and z-scores, in float64."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from data_shards.intensity import Foreground, Percentiles, ZScore

_NO_SPREAD = 1024 * torch.finfo(torch.float64).eps
"""A standard deviation below so much of the mean is rounding."""


def percentiles(image: Tensor, rule: Percentiles) -> Tensor:
    """One image, linear between two percentiles of its foreground.

    Where both are one value, as in a constant image, only what is above it becomes 1, and all else -1.

    Args:
        image: floats ``C,...``.
        rule: which percentiles of what.

    Returns:
        float32 of the same shape in [-1, 1].
    """
    counted_N = _foreground(image, rule.foreground)
    low, high = _percentile(counted_N, rule.low), _percentile(counted_N, rule.high)
    values, span = image.double(), high - low
    share = (values.clamp(low, high) - low) / span
    return (torch.where(span > 0, share, (values > high).double()) * 2 - 1).to(torch.float32)


def z_scores(image: Tensor, rule: ZScore) -> Tensor:
    """One image less the mean of its foreground, divided by its standard deviation (of the population).

    Where that is nothing but rounding, as in a constant image, all of it becomes 0.

    Args:
        image: floats ``C,...``.
        rule: what the foreground is, and how many standard deviations become 1.

    Returns:
        float32 of the same shape in [-1, 1].
    """
    std, mean = torch.std_mean(_foreground(image, rule.foreground).double(), correction=0)
    score = (image.double() - mean) / std
    spread = std > _NO_SPREAD * mean.abs()
    return torch.where(spread, score.clamp(-rule.limit, rule.limit) / rule.limit, 0.0).to(torch.float32)


def _foreground(image: Tensor, foreground: Foreground) -> Tensor:
    """The values that are counted; all of them where none is foreground."""
    values_N = image.reshape(-1)
    if foreground == "all":
        return values_N
    threshold = values_N.double().mean() if foreground == "mean" else foreground
    found = values_N[values_N.double() > threshold]
    return found if found.numel() else values_N


def _percentile(values_N: Tensor, percent: float) -> Tensor:
    """Linear between neighbours in the sorted order, as :func:`numpy.percentile` does it.

    ``torch.quantile`` takes no more than 2^24 values, and sorts them all.
    """
    place = (values_N.numel() - 1) * percent / 100
    before = math.floor(place)
    found = values_N.kthvalue(before + 1).values.double()
    if place == before:
        return found
    after = values_N.kthvalue(before + 2).values.double()
    return found + (after - found) * (place - before)
