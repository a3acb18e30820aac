"""What a page computes from predictions: curves with bands, calibration, shares of each class, and constant answers.

Shape suffixes: N cases, G different thresholds from high to low, R bootstrap replicates, P places of a curve.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data_shards.vocabulary import Task
from finetune.classifier.threshold import share
from finetune.report.run.results import Results
from finetune.scores.bootstrap import Interval, Resampling, interval
from finetune.scores.metrics import auc
from finetune.scores.numbers import absolute_error
from finetune.scores.precision import average_precision

BAND_REPLICATES = 400
PLACES = 50
MOST_BINS = 10
_FEWEST_IN_BIN = 8


@dataclass(frozen=True)
class ClassShare:
    """How many cases of a class, or with a label, are decided to be of it.

    Attributes:
        name: of the class or label.
        count: cases of it.
        recognised: of these.
        recall: their share, with its interval; None without a case.
        claimed: cases that are decided to be of it, right or wrong.
    """

    name: str
    count: int
    recognised: int
    recall: Interval | None
    claimed: int


@dataclass(frozen=True)
class CurveWithBand:
    """A curve of one class against the rest.

    Attributes:
        x: ``(G,)``.
        y: ``(G,)``.
        places: ``(P,)``, on the x axis.
        low: ``(P,)``: lower end of the pointwise 95 % interval; empty where there is none.
        high: ``(P,)``.
    """

    x: np.ndarray
    y: np.ndarray
    places: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class Bin:
    """Cases of similar probability: its mean, and how often it came true."""

    said: float
    came: Interval
    count: int


def class_shares(results: Results) -> list[ClassShare]:
    """Of every class in their order."""
    truth_NC = results.target.carried(results.labels)
    said_NC = results.target.carried(results.decided)
    found = []
    for name, truth_N, said_N in zip(results.classes, truth_NC.T, said_NC.T, strict=True):
        subjects = None if results.subjects is None else results.subjects[truth_N]
        recall = share(said_N[truth_N], seed=results.seed, subjects=subjects) if truth_N.any() else None
        found.append(ClassShare(name, int(truth_N.sum()), int((truth_N & said_N).sum()), recall, int(said_N.sum())))
    return found


def spared(results: Results, place: int) -> Interval | None:
    """Specificity of one class or label: the share of the others that are not taken for it."""
    others_N = ~results.target.carried(results.labels)[:, place]
    right_N = ~results.target.carried(results.decided)[:, place]
    if not others_N.any():
        return None
    subjects = None if results.subjects is None else results.subjects[others_N]
    return share(right_N[others_N], seed=results.seed, subjects=subjects)


def right_share(results: Results) -> Interval:
    """The share of cases that are decided rightly; of several labels, where all are right."""
    return share(results.right, seed=results.seed, subjects=results.subjects)


def constant(results: Results) -> tuple[str, float]:
    """The best answer that is the same for all, and its share of right ones; of numbers its mean absolute error."""
    if not results.target.classifies:
        means_L = results.labels.mean(axis=0)
        error = float(absolute_error(results.labels, np.tile(means_L, (len(results), 1)), results.task))
        return "the mean of these cases", error
    count_C = results.target.carried(results.labels).sum(axis=0)
    if results.task is Task.multilabel:
        patterns, counts = np.unique(results.labels, axis=0, return_counts=True)
        pattern = patterns[counts.argmax()]
        names = [name for name, has in zip(results.classes, pattern, strict=True) if has]
        return " and ".join(names) or "no label", float(counts.max() / len(results))
    place = int(count_C.argmax())
    return results.classes[place], float(count_C[place] / len(results))


def columns(results: Results) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Name, truth and probability of each class against the rest that can be drawn; of two classes one is enough."""
    if not results.target.classifies:
        return []
    truth_NC = results.target.carried(results.labels)
    places = [results.positive] if results.binary else range(len(results.classes))
    drawn = [(results.classes[place], truth_NC[:, place], results.mean[:, place]) for place in places]
    return [each for each in drawn if 0 < each[1].sum() < len(results)]


def area(results: Results, truth_N: np.ndarray, said_N: np.ndarray) -> Interval:
    """Area under the ROC curve of one class against the rest."""
    return interval(auc, truth_N.astype(np.int64), said_N, Task.binary, seed=results.seed, subjects=results.subjects)


def precision_area(results: Results, truth_N: np.ndarray, said_N: np.ndarray) -> Interval:
    """Average precision of one class against the rest."""
    labels_N = truth_N.astype(np.int64)
    return interval(average_precision, labels_N, said_N, Task.binary, seed=results.seed, subjects=results.subjects)


def roc(results: Results, truth_N: np.ndarray, said_N: np.ndarray, *, band: bool) -> CurveWithBand:
    """Sensitivity against the share of the others that are taken for the class.

    The band is pointwise: percentiles of replicates that draw subjects again.
    """
    places_P = np.linspace(0, 1, PLACES)
    true_RG, false_RG = _shares(truth_N, said_N, np.ones((1, len(truth_N))))
    low, high = _band(results, truth_N, said_N, places_P, rising=True) if band else (np.empty(0), np.empty(0))
    return CurveWithBand(np.append(0, false_RG[0]), np.append(0, true_RG[0]), places_P, low, high)


def precision_recall(results: Results, truth_N: np.ndarray, said_N: np.ndarray, *, band: bool) -> CurveWithBand:
    """How many of those taken for the class are of it, against sensitivity; the band as that of :func:`roc`."""
    places_P = np.linspace(1 / PLACES, 1, PLACES)
    true_RG, precision_RG = _precisions(truth_N, said_N, np.ones((1, len(truth_N))))
    low, high = _band(results, truth_N, said_N, places_P, rising=False) if band else (np.empty(0), np.empty(0))
    return CurveWithBand(true_RG[0], precision_RG[0], places_P, low, high)


def calibration(results: Results) -> list[Bin]:
    """Bins of equally many cases: of two classes the probability of the one that is looked for, else of the decision.

    Of several labels those of all labels together.
    """
    truth_NC = results.target.carried(results.labels)
    subjects = np.arange(len(results)) if results.subjects is None else results.subjects
    if results.binary:
        said, came = results.mean[:, results.positive], truth_NC[:, results.positive]
    elif results.task is Task.multilabel:
        said, came = results.mean.T.ravel(), truth_NC.T.ravel()
        subjects = np.tile(subjects, len(results.classes))
    else:
        place_N = results.mean.argmax(axis=1)
        said = results.mean[np.arange(len(results)), place_N]
        came = truth_NC[np.arange(len(results)), place_N]
    order = np.argsort(said, kind="stable")
    bins = max(1, min(MOST_BINS, len(order) // _FEWEST_IN_BIN))
    return [
        Bin(float(said[part].mean()), share(came[part], seed=results.seed, subjects=subjects[part]), len(part))
        for part in np.array_split(order, bins)
    ]


def confusion(results: Results) -> np.ndarray:
    """Cases of each class, in rows, by decision, int64 ``(C, C)``; for one class per case."""
    counts_CC = np.zeros((len(results.classes),) * 2, np.int64)
    np.add.at(counts_CC, (results.labels[:, 0], results.decided[:, 0]), 1)
    return counts_CC


def _tallies(truth_N: np.ndarray, said_N: np.ndarray, counts_RN: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cases of the class, and others, at or above each threshold, ``(R, G)``; equal probabilities share one."""
    order = np.argsort(-said_N, kind="stable")
    ends_G = np.flatnonzero(np.diff(said_N[order], append=np.nan) != 0)
    weight_RN = counts_RN[:, order]
    true_RG = np.cumsum(weight_RN * truth_N[order], axis=1)[:, ends_G]
    false_RG = np.cumsum(weight_RN * ~truth_N[order], axis=1)[:, ends_G]
    return true_RG, false_RG


def _shares(truth_N: np.ndarray, said_N: np.ndarray, counts_RN: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    true_RG, false_RG = _tallies(truth_N, said_N, counts_RN)
    with np.errstate(invalid="ignore"):
        return true_RG / true_RG[:, -1:], false_RG / false_RG[:, -1:]


def _precisions(truth_N: np.ndarray, said_N: np.ndarray, counts_RN: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sensitivity and precision at each threshold."""
    true_RG, false_RG = _tallies(truth_N, said_N, counts_RN)
    above_RG = true_RG + false_RG
    with np.errstate(invalid="ignore"):
        return true_RG / true_RG[:, -1:], np.where(above_RG > 0, true_RG / np.maximum(above_RG, 1e-300), 1.0)


def _band(
    results: Results, truth_N: np.ndarray, said_N: np.ndarray, places_P: np.ndarray, *, rising: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Pointwise percentiles; empty where a class has a single subject."""
    sampling = Resampling(truth_N.astype(np.int64), Task.binary, results.subjects)
    if sampling.scarcest < 2:
        return np.empty(0), np.empty(0)
    drawn = []
    for counts_RN in sampling.counts(results.seed, BAND_REPLICATES):
        if rising:
            true_RG, false_RG = _shares(truth_N, said_N, counts_RN)
            pairs = zip(false_RG, true_RG, strict=True)
            drawn += [np.interp(places_P, np.append(0, x), np.append(0, y)) for x, y in pairs]
        else:
            true_RG, precision_RG = _precisions(truth_N, said_N, counts_RN)
            for x, y in zip(true_RG, precision_RG, strict=True):
                drawn.append(y[np.minimum(np.searchsorted(x, places_P - 1e-9), len(y) - 1)])
    low_P, high_P = np.nanpercentile(drawn, [2.5, 97.5], axis=0)
    return low_P, high_P
