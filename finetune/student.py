"""The interval of a mean over few runs: Student's t, without a statistics package."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_BISECTIONS = 200


@dataclass(frozen=True)
class MeanInterval:
    """A mean over ``n`` runs, its standard deviation and t interval; those are NaN for a single run."""

    mean: float
    sd: float
    low: float
    high: float
    level: float
    n: int


def mean_interval(values: Sequence[float], level: float = 0.95) -> MeanInterval:
    """The two-sided t interval of the mean of ``values``, taken as independent draws."""
    n = len(values)
    mean = float(np.mean(values))
    if n < 2:
        return MeanInterval(mean, math.nan, math.nan, math.nan, level, n)
    sd = float(np.std(values, ddof=1))
    half = t_quantile(0.5 + level / 2, n - 1) * sd / math.sqrt(n)
    return MeanInterval(mean, sd, mean - half, mean + half, level, n)


def t_quantile(probability: float, degrees: int) -> float:
    """The quantile of Student's t above one half, by bisection.

    Raises:
        ValueError: ``probability`` is not in [0.5, 1), or there are no degrees of freedom.
    """
    if not 0.5 <= probability < 1 or degrees < 1:
        raise ValueError(f"t quantile of {probability} with {degrees} degrees of freedom")
    low, high = 0.0, 1.0
    while _two_sided(high, degrees) < 2 * probability - 1:
        high *= 2
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if _two_sided(middle, degrees) < 2 * probability - 1:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _two_sided(t: float, degrees: int) -> float:
    """P(-t < T < t): the finite sums of Abramowitz and Stegun, 26.7.3 and 26.7.4."""
    angle = math.atan(t / math.sqrt(degrees))
    cosine, sine = math.cos(angle), math.sin(angle)
    odd = degrees % 2
    term, total = (cosine, 0.0) if odd else (1.0, 0.0)
    for power in range(odd, degrees - 1, 2):
        total += term
        term *= cosine * cosine * (power + 1) / (power + 2)
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
