"""Scores of numbers and of ordered classes; every score takes counts as those of :mod:`finetune.scores.metrics`.

Shape suffixes: N cases, L numbers a case has, R bootstrap replicates, G groups of equal numbers.
"""

from __future__ import annotations

import numpy as np

from data_shards.support.errors import DataError
from data_shards.vocabulary import Task
from finetune.scores.metrics import aligned, decide

_ROUNDING = 1e-12
"""What varies by less than this share of its mean square does not vary."""


def absolute_error(labels: np.ndarray, scores: np.ndarray, task: Task, counts: np.ndarray | None = None) -> np.ndarray:
    """Mean absolute error, in the units of the label; the mean over several numbers.

    Args:
        labels: ``(N,)`` or ``(N, L)`` numbers.
        scores: as many predicted numbers.
        task: not used.
        counts: ``(N,)`` or ``(R, N)``; one each when left out.

    Returns:
        A float64 scalar, or ``(R,)``.

    Raises:
        DataError: labels and scores do not fit together, or are not finite.
    """
    del task
    labels_NL, scores_NL = _columns(labels, scores)
    return _mean(np.abs(labels_NL - scores_NL).mean(axis=1), counts)


def r_squared(labels: np.ndarray, scores: np.ndarray, task: Task, counts: np.ndarray | None = None) -> np.ndarray:
    """Share of the variance that is explained, ``1 - SSE / SST``; the mean over several numbers.

    Args, returns, raises: as for :func:`absolute_error`; NaN where a number is the same in all cases.
    """
    del task
    shares = []
    for truth_N, said_N in zip(*(each.T for each in _columns(labels, scores)), strict=True):
        spread = _variance(truth_N - truth_N.mean(), counts)
        with np.errstate(invalid="ignore"):
            shares.append(1 - _mean((truth_N - said_N) ** 2, counts) / spread)
    found: np.ndarray = np.mean(shares, axis=0)
    return found


def spearman(labels: np.ndarray, scores: np.ndarray, task: Task, counts: np.ndarray | None = None) -> np.ndarray:
    """Rank correlation, equal numbers with their mean rank; the mean over several numbers.

    Args, returns, raises: as for :func:`absolute_error`; NaN where one of the two does not vary.
    """
    del task
    found = []
    for truth_N, said_N in zip(*(each.T for each in _columns(labels, scores)), strict=True):
        a, b = _ranks(truth_N, counts), _ranks(said_N, counts)
        both = _mean(a * b, counts) - _mean(a, counts) * _mean(b, counts)
        with np.errstate(invalid="ignore"):
            found.append(both / np.sqrt(_variance(a, counts) * _variance(b, counts)))
    mean: np.ndarray = np.mean(found, axis=0)
    return mean


def absolute_error_of_classes(
    labels: np.ndarray, scores: np.ndarray, task: Task, counts: np.ndarray | None = None
) -> np.ndarray:
    """How many classes the likeliest one is off, in the mean.

    Args:
        labels: ``(N,)`` or ``(N, 1)`` class indices.
        scores: ``(N, C)`` probabilities.
        task: how the labels are to be read.
        counts: as for :func:`absolute_error`.

    Returns:
        A float64 scalar, or ``(R,)``.

    Raises:
        DataError: labels and scores do not fit together or the task.
    """
    truth_N, said_N = _classes(labels, scores, task)
    return _mean(np.abs(truth_N - said_N), counts)


def quadratic_kappa(labels: np.ndarray, scores: np.ndarray, task: Task, counts: np.ndarray | None = None) -> np.ndarray:
    """Agreement with the likeliest class, weighted by the squared distance (Cohen, Psychological Bulletin 70, 1968).

    Args, returns, raises: as for :func:`absolute_error_of_classes`; NaN where all cases are of one class and said to be
    of it.
    """
    truth_N, said_N = _classes(labels, scores, task)
    # The mean squared distance of independent draws: both variances, and the squared distance of the means.
    squares = _mean(truth_N**2 + said_N**2, counts)
    expected = _varying(squares - 2 * _mean(truth_N, counts) * _mean(said_N, counts), squares)
    with np.errstate(invalid="ignore"):
        kappa: np.ndarray = 1 - _mean((truth_N - said_N) ** 2, counts) / expected
    return kappa


def _columns(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as finite float64 ``(N, L)``."""
    labels_NL, scores_NL = (np.asarray(each, dtype=np.float64) for each in (labels, scores))
    labels_NL, scores_NL = (each[:, None] if each.ndim == 1 else each for each in (labels_NL, scores_NL))
    if labels_NL.shape != scores_NL.shape or not len(labels_NL):
        raise DataError(f"numbers of shape {labels_NL.shape} and scores of shape {scores_NL.shape}: expected one each")
    if not (np.isfinite(labels_NL).all() and np.isfinite(scores_NL).all()):
        raise DataError("numbers or their scores contain NaN or infinity")
    return labels_NL, scores_NL


def _classes(labels: np.ndarray, scores: np.ndarray, task: Task) -> tuple[np.ndarray, np.ndarray]:
    """The class of each case and the likeliest one, float64 ``(N,)``."""
    labels_NL, scores_NK = aligned(labels, scores, task)
    return labels_NL[:, 0].astype(np.float64), decide(scores_NK, task)[:, 0].astype(np.float64)


def _mean(values: np.ndarray, counts: np.ndarray | None) -> np.ndarray:
    """Weighted mean over the cases of ``(N,)`` or ``(R, N)``: a scalar, or one per replicate."""
    if counts is None:
        return np.asarray(values.mean(axis=-1))
    counts_RN = np.asarray(counts, np.float64)
    total = counts_RN @ values if values.ndim == 1 else (counts_RN * values).sum(axis=-1)
    mean: np.ndarray = np.asarray(total / counts_RN.sum(axis=-1))
    return mean


def _variance(values: np.ndarray, counts: np.ndarray | None) -> np.ndarray:
    """Weighted variance; NaN where the values do not vary beyond rounding."""
    squares = _mean(values**2, counts)
    return _varying(squares - _mean(values, counts) ** 2, squares)


def _varying(spread: np.ndarray, squares: np.ndarray) -> np.ndarray:
    return np.where(spread > _ROUNDING * squares, spread, np.nan)


def _ranks(values_N: np.ndarray, counts: np.ndarray | None) -> np.ndarray:
    """Mean ranks of equal values, as if each case were there as often as it counts; ``(N,)`` or ``(R, N)``."""
    _, group_N = np.unique(values_N, return_inverse=True)
    counts_RN = np.ones(len(values_N)) if counts is None else np.asarray(counts, np.float64)
    starts_G = np.flatnonzero(np.diff(np.sort(group_N), prepend=-1))
    size_RG = np.add.reduceat(counts_RN[..., np.argsort(group_N, kind="stable")], starts_G, axis=-1)
    middle_RG = size_RG.cumsum(axis=-1) - size_RG / 2
    ranks: np.ndarray = middle_RG[..., group_N] - counts_RN.sum(axis=-1)[..., None] / 2
    return ranks
