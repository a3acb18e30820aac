"""Paired differences over seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import t


def limits(differences: Sequence[float]) -> tuple[float, float, float]:
    """Mean and 95 % t interval of differences of as many seeds, at least 2."""
    values = np.asarray(differences, dtype=np.float64)
    half = t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    return float(values.mean()), float(values.mean() - half), float(values.mean() + half)


def interval(differences: Sequence[float], digits: int = 3) -> str:
    """The same in words."""
    return "{0:+.{n}f} [{1:+.{n}f}, {2:+.{n}f}]".format(*limits(differences), n=digits)


def ratio(logarithms: Sequence[float], form: str = ".3g") -> str:
    """Geometric mean of ratios, given by their logarithms, and its 95 % t interval."""
    mean, low, high = np.exp(limits(logarithms))
    return f"{mean:{form}} [{low:{form}}, {high:{form}}]"


def spread(values: Sequence[float]) -> str:
    """Mean, lowest and highest."""
    return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"
