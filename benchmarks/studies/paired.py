"""Paired differences over seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# 97.5 % quantiles of Student's t with 1, 2, ... degrees of freedom.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


def interval(differences: Sequence[float]) -> str:
    """Mean and 95 % t interval of differences of as many seeds.

    Raises:
        IndexError: fewer than 2 or more than 10 seeds.
    """
    values = np.asarray(differences, dtype=np.float64)
    half = _T[len(values) - 2] * values.std(ddof=1) / len(values) ** 0.5
    return f"{values.mean():+.3f} [{values.mean() - half:+.3f}, {values.mean() + half:+.3f}]"


def spread(values: Sequence[float]) -> str:
    """Mean, lowest and highest."""
    return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"
