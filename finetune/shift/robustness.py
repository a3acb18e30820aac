"""How much worse a fitted classifier becomes when acquisition changes the images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from data_shards.support.errors import DataError
from data_shards.vocabulary import Task
from finetune.cases import Cases
from finetune.classifier.predictor import Predictor
from finetune.progress import progress
from finetune.scores.bootstrap import REPLICATES, Interval, interval, paired_difference
from finetune.scores.calibration import brier, expected_calibration_error
from finetune.scores.metrics import SHARE, Score, balanced_accuracy
from finetune.shift.base import Corruption
from finetune.shift.pictures import Change, corrupted
from finetune.targets import Metric


def error(labels: np.ndarray, scores: np.ndarray, task: Task, counts: np.ndarray | None = None) -> np.ndarray:
    """One less the balanced accuracy, see :func:`~finetune.scores.metrics.balanced_accuracy`."""
    found: np.ndarray = 1 - balanced_accuracy(labels, scores, task, counts)
    return found


OF_CLASSES: dict[str, Score] = {"error": error, "calibration_error": expected_calibration_error, "brier": brier}
"""What classes are scored by beside the metrics of the target, by name; lower is better."""


@dataclass(frozen=True)
class Row:
    """What is said of all cases under one change.

    Attributes:
        corruption: its name; empty for images as they are.
        severity: 0 for images as they are.
        amount: of the change, in the unit of the corruption.
        scores: the interval of each metric of the target by name, of classes also those of :data:`OF_CLASSES`.
        changes: each less that of images as they are, by name, on the same resampled subjects.
    """

    corruption: str
    severity: int
    amount: float
    scores: dict[str, Interval]
    changes: dict[str, Interval]


@dataclass(frozen=True)
class Summary:
    """A corruption over all its severities, or all corruptions over all theirs.

    Attributes:
        corruption: its name; empty for all.
        scores: the mean of each score over severities, by name; that of ``error`` is the mean corruption error.
        changes: each less that of images as they are.
        relative: ``error`` over that of images as they are; NaN where these have none.
    """

    corruption: str
    scores: dict[str, Interval]
    changes: dict[str, Interval]
    relative: float


@dataclass(frozen=True)
class Robustness:
    """All that was measured.

    Attributes:
        cases: how many.
        subjects: how many they are of; what intervals resample.
        rows: images as they are, then every corruption at every severity.
        summaries: every corruption, then all together.
        metrics: of the target; the first one decides.
    """

    cases: int
    subjects: int
    rows: tuple[Row, ...]
    summaries: tuple[Summary, ...]
    metrics: tuple[Metric, ...]

    @property
    def overall(self) -> Summary:
        """All corruptions together."""
        return self.summaries[-1]

    def as_json(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {
            "cases": self.cases,
            "subjects": self.subjects,
            "rows": [asdict(row) for row in self.rows],
            "summaries": [asdict(summary) for summary in self.summaries],
        }

    def table(self) -> list[dict[str, Any]]:
        """A flat row for each change."""
        return [_flat(row) for row in self.rows]


def _flat(row: Row) -> dict[str, Any]:
    found: dict[str, Any] = {"corruption": row.corruption, "severity": row.severity, "amount": row.amount}
    for name, said in row.scores.items():
        found |= {name: said.estimate, f"{name}_low": said.low, f"{name}_high": said.high}
    for name, said in row.changes.items():
        found |= {f"{name}_change": said.estimate, f"{name}_change_low": said.low, f"{name}_change_high": said.high}
    return found


def measure(
    predictor: Predictor,
    cases: Cases,
    corruptions: Sequence[Corruption],
    severities: Sequence[int],
    *,
    seed: int = 0,
    replicates: int = REPLICATES,
) -> Robustness:
    """Predict cases as they are and under every change, and score what is said.

    Args:
        predictor: fitted.
        cases: with labels; read and prepared as those it was fitted to.
        corruptions: which.
        severities: of 1 to 5.
        seed: of what is drawn for images, and of the bootstrap.
        replicates: of the bootstrap.

    Raises:
        DataError: the cases have no labels, or an image does not fit.
    """
    scoring = _Scoring(cases, predictor, seed, replicates)
    said: dict[str, list[np.ndarray]] = {}
    clean_NC = predictor.predict_proba(cases)
    rows = [scoring.row("", 0, 0.0, clean_NC, None)]
    with progress(len(corruptions) * len(severities), "changes", "robustness") as told:
        for corruption, severity in _each(corruptions, severities):
            changed_NC = predictor.predict_proba(corrupted(cases, [Change(corruption, severity)], seed))
            said.setdefault(corruption.name, []).append(changed_NC)
            amount = corruption.amounts[severity - 1]
            rows.append(scoring.row(corruption.name, severity, amount, changed_NC, clean_NC))
            told.advance(1)
    summaries = [scoring.summary(name, np.stack(each), clean_NC) for name, each in said.items()]
    everything = np.concatenate([np.stack(each) for each in said.values()])
    summaries.append(scoring.summary("", everything, clean_NC))
    subjects = len(cases) if cases.subjects is None else len(np.unique(cases.subjects))
    return Robustness(len(cases), subjects, tuple(rows), tuple(summaries), cases.target.metrics)


def _each(corruptions: Sequence[Corruption], severities: Sequence[int]) -> Iterator[tuple[Corruption, int]]:
    return ((corruption, severity) for corruption in corruptions for severity in severities)


class _Scoring:
    """Scores with intervals over subjects.

    Args:
        cases: labelled.
        predictor: whose classes they must have.
        seed: of the bootstrap.
        replicates: of the bootstrap.
    """

    def __init__(self, cases: Cases, predictor: Predictor, seed: int, replicates: int) -> None:
        self._labels, self._task = cases.known_labels, cases.task
        self._options: dict[str, Any] = {"seed": seed, "subjects": cases.subjects, "replicates": replicates}
        if tuple(predictor.target.classes) != tuple(cases.target.classes) or predictor.target.task is not cases.task:
            raise DataError(f"{cases.name}: the labels are of other classes than those the classifier was fitted to")
        self._classifies = cases.target.classifies
        self._kinds = {kind.name: (kind.score, kind.limits) for kind in cases.target.metrics}
        if self._classifies:
            self._kinds |= {name: (score, SHARE) for name, score in OF_CLASSES.items()}

    def row(self, name: str, severity: int, amount: float, said: np.ndarray, clean: np.ndarray | None) -> Row:
        """One change; images as they are have nothing to be compared with."""
        return Row(name, severity, amount, self._scores(said), {} if clean is None else self._changes(said, clean))

    def summary(self, name: str, said_SNC: np.ndarray, clean_NC: np.ndarray) -> Summary:
        """Means over what was said of all changes."""
        scores, relative = self._scores(said_SNC), math.nan
        if self._classifies and (before := float(error(self._labels, clean_NC, self._task))):
            relative = scores["error"].estimate / before
        return Summary(name, scores, self._changes(said_SNC, clean_NC), relative)

    def _scores(self, said: np.ndarray) -> dict[str, Interval]:
        return {
            name: interval(score, self._labels, said, self._task, limits=limits, **self._options)
            for name, (score, limits) in self._kinds.items()
        }

    def _changes(self, said: np.ndarray, clean_NC: np.ndarray) -> dict[str, Interval]:
        return {
            name: paired_difference(score, self._labels, said, clean_NC, self._task, **self._options)
            for name, (score, _) in self._kinds.items()
        }
