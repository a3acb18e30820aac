"""What the table of an evaluation says of one set of predictions: all together, by class, and by group.

Shape suffixes: N cases, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from data_shards.vocabulary import Task
from finetune.cases import Cases
from finetune.scores.bootstrap import REPLICATES, Interval, interval
from finetune.scores.calibration import brier, expected_calibration_error
from finetune.scores.decisions import sensitivity, specificity
from finetune.scores.metrics import auc
from finetune.scores.precision import average_precision
from finetune.targets import Metric, Target

NOT_STATED = "not stated"
"""The group of cases whose cell in the table is empty."""

_CALIBRATION = (
    Metric("brier", brier, "Brier score", rises=False),
    Metric("ece", expected_calibration_error, "calibration error", rises=False),
)
_OF_A_CLASS = (
    Metric("auc", auc, "AUC", 0.5),
    Metric("average_precision", average_precision, "average precision"),
    Metric("brier", brier, "Brier score", rises=False),
)
_DECISIONS = (
    Metric("sensitivity", sensitivity, "sensitivity"),
    Metric("specificity", specificity, "specificity"),
)


@dataclass(frozen=True)
class Measure:
    """One number of the table.

    Attributes:
        group_by: the column of the table of images that the cases are grouped by; empty for all cases.
        group: the value in that column.
        label: the class that is told from the rest, or the label; empty for all together.
        metric: name of the score.
        value: itself, with its interval over subjects.
        images: cases it is of.
        subjects: how many they are of.
        lacking: the classes that these cases lack, in words; empty where none is missing.
    """

    group_by: str
    group: str
    label: str
    metric: str
    value: Interval
    images: int
    subjects: int
    lacking: str

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What it is of, whoever made the predictions."""
        return self.group_by, self.group, self.label, self.metric


def metrics_of(target: Target) -> tuple[Metric, ...]:
    """The scores of a target, and of classes also average precision, Brier score and calibration error."""
    if not target.classifies:
        return target.metrics
    return (*target.metrics, Metric("average_precision", average_precision, "average precision"), *_CALIBRATION)


def measured(
    test: Cases,
    probabilities_NC: np.ndarray,
    *,
    seed: int = 0,
    known: Mapping[str, Interval] | None = None,
    replicates: int = REPLICATES,
) -> Iterator[Measure]:
    """Everything the table says of predictions.

    All cases together by every score of :func:`metrics_of`; each class against the rest by AUC, average precision,
    Brier score, sensitivity and specificity of what is decided; and each group of the test cases as all of them.

    Args:
        test: labelled cases; :attr:`~finetune.cases.Cases.groups` says how they are grouped.
        probabilities_NC: as :meth:`finetune.targets.base.Target.probabilities` gives them.
        seed: of the bootstrap.
        known: intervals of scores of all cases that were computed with this seed.
        replicates: of the bootstrap.

    Raises:
        DataError: the cases have no labels, or the predictions do not fit them.
    """
    yield from _whole(test, probabilities_NC, "", "", seed, replicates, known or {})
    if test.target.classifies:
        yield from _by_class(test, probabilities_NC, seed, replicates)
    for column, values_N in test.groups.items():
        for value in np.unique(values_N).tolist():
            rows = np.flatnonzero(values_N == value)
            yield from _whole(test[rows], probabilities_NC[rows], column, value or NOT_STATED, seed, replicates, {})


def _whole(
    cases: Cases,
    probabilities_NC: np.ndarray,
    group_by: str,
    group: str,
    seed: int,
    replicates: int,
    known: Mapping[str, Interval],
) -> Iterator[Measure]:
    labels, lacking = cases.known_labels, "; ".join(cases.lacking)
    for metric in metrics_of(cases.target):
        value = known.get(metric.name) or _value(
            metric, labels, probabilities_NC, cases.task, cases.subjects, seed, replicates
        )
        yield Measure(group_by, group, "", metric.name, value, len(cases), subjects_of(cases), lacking)


def _by_class(cases: Cases, probabilities_NC: np.ndarray, seed: int, replicates: int) -> Iterator[Measure]:
    target, labels = cases.target, cases.known_labels
    truth_NC, decided_NC = target.carried(labels), target.carried(target.decide(probabilities_NC))
    for number, name in enumerate(target.classes):
        truth_N = truth_NC[:, number].astype(np.int64)
        said: Sequence[tuple[Metric, np.ndarray]] = [
            *((metric, probabilities_NC[:, number]) for metric in _OF_A_CLASS),
            *((metric, decided_NC[:, number].astype(np.float64)) for metric in _DECISIONS),
        ]
        everywhere = "every" if truth_N.any() else "no"
        lacking = "" if 0 < truth_N.sum() < len(truth_N) else f"{name!r} is on {everywhere} image"
        for metric, scores_N in said:
            value = _value(metric, truth_N, scores_N, Task.binary, cases.subjects, seed, replicates)
            yield Measure("", "", name, metric.name, value, len(cases), subjects_of(cases), lacking)


def _value(
    metric: Metric,
    labels: np.ndarray,
    scores: np.ndarray,
    task: Task,
    subjects: np.ndarray | None,
    seed: int,
    replicates: int,
) -> Interval:
    return interval(
        metric.score,
        labels,
        scores,
        task,
        seed=seed,
        subjects=subjects,
        replicates=replicates,
        limits=metric.limits,
    )


def subjects_of(cases: Cases) -> int:
    """How many subjects the cases are of; each its own where nothing is known."""
    return len(cases) if cases.subjects is None else len(np.unique(cases.subjects))
