"""AUC and accuracy as ``medmnist.Evaluator`` computes them, and beside them balanced accuracy and the confusion matrix.

Every score takes ``counts``, how often each image counts, as one vector or as one row per bootstrap replicate; so the
interval of a score is computed by the very function that computes the score, for all replicates at once. scikit-learn's
functions, which serve where there is nothing to repeat, take one replicate each: 1000 of them 30 to 190 times the time.

Shape suffixes: N images, L labels an image carries, K scores an image gets, R bootstrap replicates, C classes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import sklearn.metrics

from data_shards.support.errors import DataError
from data_shards.vocabulary import Task

SHARE = (0.0, 1.0)
"""What a score can be at least and at most that is a share, such as AUC and accuracy."""

Score = Callable[[np.ndarray, np.ndarray, Task, np.ndarray | None], np.ndarray]
"""``(labels, scores, task, counts)``."""

THRESHOLD = 0.5
CLASSIFICATION = (Task.binary, Task.multiclass, Task.ordinal, Task.multilabel)


def auc(labels: np.ndarray, scores: np.ndarray, task: Task, counts: np.ndarray | None = None) -> np.ndarray:
    """Area under the ROC curve; ordinal labels are scored as multi-class ones.

    Binary: of the last score column. Multi-class: unweighted mean over the columns of one class against the rest.
    Multi-label: unweighted mean over the labels.

    Args:
        labels: ``(N,)`` or ``(N, L)`` class indices, or 0/1 per label of a multi-label task.
        scores: ``(N, K)``, or ``(N,)`` for a binary task; higher means more likely.
        task: how the labels are to be read.
        counts: ``(N,)`` or ``(R, N)``; one each when left out.

    Returns:
        A float64 scalar, or ``(R,)``. It is NaN where a column has no positive or no negative image.

    Raises:
        DataError: labels and scores do not fit together or the task.
    """
    labels_NL, scores_NK = aligned(labels, scores, task)
    counts_RN, scalar = replicates(counts, len(labels_NL))
    columns = one_against_rest(labels_NL, scores_NK, task)
    areas_KR = np.stack([_area(positive_N, scores_N, counts_RN) for positive_N, scores_N in columns])
    areas_R: np.ndarray = areas_KR.mean(axis=0)
    return areas_R[0] if scalar else areas_R


def accuracy(labels: np.ndarray, scores: np.ndarray, task: Task, counts: np.ndarray | None = None) -> np.ndarray:
    """Share of right decisions (see :func:`decide`); the mean over the labels of a multi-label task.

    Args, returns, raises: as for :func:`auc`.
    """
    labels_NL, scores_NK = aligned(labels, scores, task)
    counts_RN, scalar = replicates(counts, len(labels_NL))
    right_N = (decide(scores_NK, task) == labels_NL).mean(axis=1)
    share_R: np.ndarray = counts_RN @ right_N / counts_RN.sum(axis=1)
    return share_R[0] if scalar else share_R


def balanced_accuracy(
    labels: np.ndarray, scores: np.ndarray, task: Task, counts: np.ndarray | None = None
) -> np.ndarray:
    """Mean over the classes that occur of the share of their images that is recognised.

    A multi-label task gives the mean over its labels of (sensitivity + specificity) / 2.
    Args, returns, raises: as for :func:`auc`.
    """
    labels_NL, scores_NK = aligned(labels, scores, task)
    counts_RN, scalar = replicates(counts, len(labels_NL))
    decided_NL = decide(scores_NK, task)
    per_label_LR = []
    for truth_N, decided_N in zip(labels_NL.T, decided_NL.T, strict=True):
        one_hot_NC = (truth_N[:, None] == np.unique(truth_N)).astype(np.float64)
        size_RC = counts_RN @ one_hot_NC
        right_RC = counts_RN @ (one_hot_NC * (truth_N == decided_N)[:, None])
        with np.errstate(invalid="ignore"):
            per_label_LR.append(np.nanmean(right_RC / size_RC, axis=1))
    mean_R: np.ndarray = np.mean(per_label_LR, axis=0)
    return mean_R[0] if scalar else mean_R


def confusion_matrix(labels: np.ndarray, scores: np.ndarray, task: Task) -> np.ndarray:
    """Image counts, int64: rows are true classes, columns decided ones.

    Returns:
        ``(C, C)``, or ``(L, 2, 2)`` for a multi-label task.

    Raises:
        DataError: as for :func:`auc`.
    """
    labels_NL, scores_NK = aligned(labels, scores, task)
    decided_NL = decide(scores_NK, task)
    if task is Task.multilabel:
        tables: np.ndarray = sklearn.metrics.multilabel_confusion_matrix(labels_NL, decided_NL)
        return tables
    classes = 2 if task is Task.binary else scores_NK.shape[1]
    table: np.ndarray = sklearn.metrics.confusion_matrix(labels_NL[:, 0], decided_NL[:, 0], labels=np.arange(classes))
    return table


def decide(scores: np.ndarray, task: Task) -> np.ndarray:
    """The decision each score stands for, ``(N, L)``: above 0.5, or the highest column of a multi-class task."""
    scores_NK = scores[:, None] if scores.ndim == 1 else scores
    if task is Task.binary:
        return (scores_NK[:, -1:] > THRESHOLD).astype(np.int64)
    if task is Task.multilabel:
        return (scores_NK > THRESHOLD).astype(np.int64)
    highest_N1: np.ndarray = scores_NK.argmax(axis=1, keepdims=True)
    return highest_N1


def one_against_rest(labels_NL: np.ndarray, scores_NK: np.ndarray, task: Task) -> list[tuple[np.ndarray, np.ndarray]]:
    """Who is positive, bool ``(N,)``, and with what score, of each question that a mean over classes is made of.

    Binary: the second class alone. Multi-class: each class against the rest. Multi-label: each label.

    Args:
        labels_NL: of :func:`aligned`.
        scores_NK: of :func:`aligned`.
        task: how the labels are to be read.
    """
    if task is Task.binary:
        return [(labels_NL[:, 0] == 1, scores_NK[:, -1])]
    if task is Task.multilabel:
        return [(labels_NL[:, k] == 1, scores_NK[:, k]) for k in range(scores_NK.shape[1])]
    return [(labels_NL[:, 0] == k, scores_NK[:, k]) for k in range(scores_NK.shape[1])]


def _area(positive_N: np.ndarray, scores_N: np.ndarray, counts_RN: np.ndarray) -> np.ndarray:
    """The Mann-Whitney statistic with ties worth a half: P(positive above negative) + P(tie) / 2, per replicate."""
    order = np.argsort(scores_N, kind="stable")
    ties = np.flatnonzero(np.diff(scores_N[order], prepend=np.nan) != 0)
    positives_RG = np.add.reduceat(counts_RN[:, order] * positive_N[order], ties, axis=1)
    negatives_RG = np.add.reduceat(counts_RN[:, order] * ~positive_N[order], ties, axis=1)
    below_RG = np.cumsum(negatives_RG, axis=1) - negatives_RG / 2
    pairs_R = positives_RG.sum(axis=1) * negatives_RG.sum(axis=1)
    with np.errstate(invalid="ignore"):
        area_R: np.ndarray = (positives_RG * below_RG).sum(axis=1) / pairs_R
    return area_R


def replicates(counts: np.ndarray | None, images: int) -> tuple[np.ndarray, bool]:
    """Counts as ``(R, N)`` floats, and whether one replicate was asked for."""
    if counts is None:
        return np.ones((1, images)), True
    return np.atleast_2d(counts).astype(np.float64), counts.ndim == 1


def aligned(labels: np.ndarray, scores: np.ndarray, task: Task) -> tuple[np.ndarray, np.ndarray]:
    """Labels as ``(N, L)`` int64 and scores as ``(N, K)`` float64, checked against each other."""
    if task not in CLASSIFICATION:
        raise DataError(f"a {task.name} task has no classification score")
    labels_NL = np.asarray(labels).astype(np.int64)
    labels_NL = labels_NL[:, None] if labels_NL.ndim == 1 else labels_NL
    scores_NK = np.asarray(scores, dtype=np.float64)
    scores_NK = scores_NK[:, None] if scores_NK.ndim == 1 else scores_NK
    if len(labels_NL) != len(scores_NK) or not len(labels_NL):
        raise DataError(f"{len(labels_NL)} labels and {len(scores_NK)} scores: expected as many of each, at least one")
    if not np.isfinite(scores_NK).all():
        raise DataError("scores contain NaN or infinity")
    if task is Task.multilabel:
        if labels_NL.shape[1] != scores_NK.shape[1]:
            raise DataError(f"{labels_NL.shape[1]} labels but {scores_NK.shape[1]} score columns")
        classes = 2
    else:
        if labels_NL.shape[1] != 1:
            raise DataError(f"a {task.name} task has one label per image, found {labels_NL.shape[1]}")
        classes = 2 if task is Task.binary else scores_NK.shape[1]
    if labels_NL.min() < 0 or labels_NL.max() >= classes:
        raise DataError(f"labels run from {labels_NL.min()} to {labels_NL.max()}, expected 0 to {classes - 1}")
    return labels_NL, scores_NK
