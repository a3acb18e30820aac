"""The mean over cases with an interval over subjects."""

from __future__ import annotations

import numpy as np
from scipy.stats import t

from finetune.scores.bootstrap import LEVEL, REPLICATES, Interval


def mean_interval(
    values_N: np.ndarray, subjects_N: np.ndarray, *, seed: int, replicates: int = REPLICATES, level: float = LEVEL
) -> Interval:
    """The mean of values, and how far it could have come out otherwise with other subjects.

    Subjects are drawn again with all their cases, one fewer than there are, each counting so much more that they are as
    many; from the replicates the standard error is taken, with Student's t (see :mod:`finetune.scores.bootstrap`).

    Args:
        values_N: a number for each case.
        subjects_N: whose it is.
        seed: fixes the subjects drawn.
        replicates: how often.
        level: coverage aimed at.

    Returns:
        With NaN bounds where there is a single subject, or the mean is the same whoever is drawn.
    """
    values_N = np.asarray(values_N, np.float64)
    names, place_N = np.unique(subjects_N, return_inverse=True)
    count = len(names)
    estimate = float(values_N.mean())
    if count < 2:
        return Interval(estimate, np.nan, np.nan, level, replicates, seed)
    total_S, size_S = np.bincount(place_N, values_N, count), np.bincount(place_N, minlength=count)
    drawn_RS = np.random.default_rng(seed).multinomial(count - 1, np.full(count, 1 / count), size=replicates)
    means_R = (drawn_RS @ total_S) / (drawn_RS @ size_S)
    error = float(means_R.std())
    half = float(t.ppf(0.5 + level / 2, count - 1)) * error if error > 0 else np.nan
    return Interval(estimate, estimate - half, estimate + half, level, replicates, seed)
