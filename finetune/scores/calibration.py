"""Whether probabilities come true; every score takes counts as those of :mod:`finetune.scores.metrics`.

An expected calibration error puts cases into bins of similar probability and takes the mean distance, over cases,
between the mean probability of a bin and how often it came true. Two warnings: even of perfect probabilities it is
above zero, by the noise in each bin, the more so the fewer cases there are (Kumar, Liang and Ma, Verified uncertainty
calibration, NeurIPS 2019); and a model that always says the prevalence has none. The Brier score has neither fault.
"""

from __future__ import annotations

import numpy as np

from data_shards.vocabulary import Task
from finetune.scores.metrics import aligned, decide, replicates

BINS = 15


def expected_calibration_error(
    labels: np.ndarray,
    scores: np.ndarray,
    task: Task,
    counts: np.ndarray | None = None,
    *,
    bins: int = BINS,
    adaptive: bool = False,
) -> np.ndarray:
    """Mean distance between the probability of what is decided and how often that is right.

    Guo et al., On calibration of modern neural networks, ICML 2017, eq. 3. For several labels, the mean over them.

    Args:
        labels: as for :func:`finetune.scores.metrics.auc`.
        scores: probabilities ``(N, C)``; ``(N,)`` or ``(N, 1)`` of the second class for a binary task.
        task: how the labels are to be read.
        counts: ``(N,)`` or ``(R, N)``; one each when left out.
        bins: how many bins.
        adaptive: bins of equally many cases, not of equal width (Nguyen and O'Connor, Posterior calibration and
            exploratory analysis for natural language processing models, EMNLP 2015). Equal probabilities share a bin.

    Returns:
        A float64 scalar, or ``(R,)``.

    Raises:
        DataError: labels and scores do not fit together or the task.
    """
    labels_NL, scores_NK = aligned(labels, scores, task)
    right_NL = decide(scores_NK, task) == labels_NL
    if task is Task.binary:
        scores_NK = scores_NK[:, -1:]
    if task in (Task.binary, Task.multilabel):
        confidence_NL = np.maximum(scores_NK, 1 - scores_NK)
    else:
        confidence_NL = scores_NK.max(axis=1, keepdims=True)
    return _mean_gap(confidence_NL, right_NL, counts, bins, adaptive)


def classwise_calibration_error(
    labels: np.ndarray,
    scores: np.ndarray,
    task: Task,
    counts: np.ndarray | None = None,
    *,
    bins: int = BINS,
    adaptive: bool = False,
) -> np.ndarray:
    """Mean distance between the probability of a class and how often it is the right one; the mean over the classes.

    Kull et al., Beyond temperature scaling, NeurIPS 2019, eq. 3. For a binary task of the second class; for several
    labels of the presence of each. Unlike :func:`expected_calibration_error` it sees a rare class that is never
    decided. Args, returns, raises: as there.
    """
    labels_NL, scores_NK = aligned(labels, scores, task)
    if task is Task.binary:
        true_NK, scores_NK = labels_NL == 1, scores_NK[:, -1:]
    elif task is Task.multilabel:
        true_NK = labels_NL == 1
    else:
        true_NK = labels_NL == np.arange(scores_NK.shape[1])
    return _mean_gap(scores_NK, true_NK, counts, bins, adaptive)


def brier(labels: np.ndarray, scores: np.ndarray, task: Task, counts: np.ndarray | None = None) -> np.ndarray:
    """Mean squared distance of the probabilities from what came true, in [0, 1] (Brier, Monthly Weather Review, 1950).

    Of the second class for a binary task, half the sum over the classes for several (which is the same for two), the
    mean over several labels. Args, returns, raises: as for :func:`expected_calibration_error`.
    """
    labels_NL, scores_NK = aligned(labels, scores, task)
    counts_RN, scalar = replicates(counts, len(labels_NL))
    if task is Task.binary:
        square_N = (scores_NK[:, -1] - labels_NL[:, 0]) ** 2
    elif task is Task.multilabel:
        square_N = ((scores_NK - labels_NL) ** 2).mean(axis=1)
    else:
        square_N = ((scores_NK - (labels_NL == np.arange(scores_NK.shape[1]))) ** 2).sum(axis=1) / 2
    found_R: np.ndarray = counts_RN @ square_N / counts_RN.sum(axis=1)
    return found_R[0] if scalar else found_R


def _mean_gap(
    probability_NK: np.ndarray, true_NK: np.ndarray, counts: np.ndarray | None, bins: int, adaptive: bool
) -> np.ndarray:
    """``sum_b |sum_{i in b} w_i (p_i - y_i)| / sum_i w_i``, per column; the mean over columns."""
    counts_RN, scalar = replicates(counts, len(probability_NK))
    gaps_KR = []
    for probability_N, true_N in zip(probability_NK.T, true_NK.T, strict=True):
        bin_N = _bins(probability_N, bins, adaptive)
        signed_NB = (bin_N[:, None] == np.unique(bin_N)) * (probability_N - true_N)[:, None]
        gaps_KR.append(np.abs(counts_RN @ signed_NB).sum(axis=1) / counts_RN.sum(axis=1))
    mean_R: np.ndarray = np.mean(gaps_KR, axis=0)
    return mean_R[0] if scalar else mean_R


def _bins(probability_N: np.ndarray, bins: int, adaptive: bool) -> np.ndarray:
    """The bin of each case; a bin is open below and holds its upper edge, as in eq. 3 of Guo et al."""
    inner = np.arange(1, bins) / bins
    edges = np.quantile(probability_N, inner, method="inverted_cdf") if adaptive else inner
    return np.searchsorted(edges, probability_N, side="left")
