"""Average precision; the score takes counts as those of :mod:`finetune.scores.metrics`.

Its level is the share of positives, not one half: of a rare class a low value may be a good one.
"""

from __future__ import annotations

import numpy as np

from data_shards.vocabulary import Task
from finetune.scores.metrics import aligned, one_against_rest, replicates


def average_precision(
    labels: np.ndarray, scores: np.ndarray, task: Task, counts: np.ndarray | None = None
) -> np.ndarray:
    """The mean of the precision over the recall, ``sum_n (R_n - R_{n-1}) P_n``, without interpolation.

    As scikit-learn's ``average_precision_score``, which takes one replicate at a time. Binary: of the second class;
    else the unweighted mean over classes, one against the rest, or over labels. Equal scores are one threshold.

    Args:
        labels: ``(N,)`` or ``(N, L)`` class indices, or 0/1 per label of a multi-label task.
        scores: ``(N, K)``, or ``(N,)`` for a binary task; higher means more likely.
        task: how the labels are to be read.
        counts: ``(N,)`` or ``(R, N)``; one each when left out.

    Returns:
        A float64 scalar, or ``(R,)``. As the AUC, and unlike scikit-learn's, it is NaN where a class has no image, or a
        label is on no image or on every one: without anything to tell apart it is 1, whoever says what.

    Raises:
        DataError: labels and scores do not fit together or the task.
    """
    labels_NL, scores_NK = aligned(labels, scores, task)
    counts_RN, scalar = replicates(counts, len(labels_NL))
    columns = one_against_rest(labels_NL, scores_NK, task)
    means_R: np.ndarray = np.mean([_mean_precision(*column, counts_RN) for column in columns], axis=0)
    return means_R[0] if scalar else means_R


def _mean_precision(positive_N: np.ndarray, scores_N: np.ndarray, counts_RN: np.ndarray) -> np.ndarray:
    order = np.argsort(-scores_N, kind="stable")
    ties = np.flatnonzero(np.diff(scores_N[order], prepend=np.nan) != 0)
    above_RG = np.add.reduceat(counts_RN[:, order], ties, axis=1).cumsum(axis=1)
    positives_RG = np.add.reduceat(counts_RN[:, order] * positive_N[order], ties, axis=1)
    defined_R = positives_RG.sum(axis=1) < above_RG[:, -1]
    # Above the first threshold there may be nobody in a replicate, and then no positive, either.
    precision_RG = positives_RG.cumsum(axis=1) / np.maximum(above_RG, np.finfo(np.float64).tiny)
    with np.errstate(invalid="ignore"):
        mean_R: np.ndarray = (positives_RG * precision_RG).sum(axis=1) / positives_RG.sum(axis=1)
    return np.where(defined_R, mean_R, np.nan)
