"""Sensitivity and specificity at a threshold; scores as those of :mod:`finetune.scores.metrics`."""

from __future__ import annotations

import numpy as np

from data_shards.support.errors import DataError
from data_shards.vocabulary import Task
from finetune.scores.metrics import THRESHOLD, aligned, replicates


def sensitivity(
    labels: np.ndarray,
    scores: np.ndarray,
    task: Task,
    counts: np.ndarray | None = None,
    *,
    threshold: float = THRESHOLD,
) -> np.ndarray:
    """Share of the cases of the second class that are above the threshold.

    Args:
        labels: ``(N,)`` or ``(N, 1)``, 0 or 1.
        scores: probabilities of the second class, ``(N,)``, or of both, ``(N, 2)``.
        task: binary.
        counts: ``(N,)`` or ``(R, N)``; one each when left out.
        threshold: above it a case is decided to be of the second class.

    Returns:
        A float64 scalar, or ``(R,)``; NaN where no case is of the class.

    Raises:
        DataError: the task is not binary, or labels and scores do not fit together.
    """
    return _share(labels, scores, task, counts, threshold, 1)


def specificity(
    labels: np.ndarray,
    scores: np.ndarray,
    task: Task,
    counts: np.ndarray | None = None,
    *,
    threshold: float = THRESHOLD,
) -> np.ndarray:
    """Share of the cases of the first class that are not above the threshold; else as :func:`sensitivity`."""
    return _share(labels, scores, task, counts, threshold, 0)


def _share(
    labels: np.ndarray, scores: np.ndarray, task: Task, counts: np.ndarray | None, threshold: float, which: int
) -> np.ndarray:
    if task is not Task.binary:
        raise DataError(f"sensitivity and specificity are of a binary task, found {task.name}")
    labels_NL, scores_NK = aligned(labels, scores, task)
    counts_RN, scalar = replicates(counts, len(labels_NL))
    of_N = labels_NL[:, 0] == which
    right_N = of_N & ((scores_NK[:, -1] > threshold) == (which == 1))
    with np.errstate(invalid="ignore"):
        share_R: np.ndarray = counts_RN @ right_N / (counts_RN @ of_N)
    return share_R[0] if scalar else share_R
