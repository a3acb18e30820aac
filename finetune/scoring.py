"""The scores of one set of predictions, each with its interval over test subjects, and what they show in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from data_shards.support.errors import DataError
from finetune.cases import Cases
from finetune.scores.bootstrap import REPLICATES, Interval, interval
from finetune.scores.metrics import confusion_matrix
from finetune.targets import Metric


@dataclass(frozen=True)
class Scores:
    """Scores on a test split.

    Attributes:
        images: how many cases were scored.
        subjects: how many they are of; what the intervals resample.
        lacking: the classes that the split lacks, see :attr:`~finetune.cases.Cases.lacking`. The AUC is
            then NaN, and the balanced accuracy that of the classes that are there.
        metrics: the interval of each metric of the target by name; the first is the one that decides.
        confusion: case counts, true classes in rows; one table per label of a multi-label task; None of numbers.
            Of the first of predictions that were made several times.
        kinds: what the metrics are, in their order.
    """

    images: int
    subjects: int
    lacking: tuple[str, ...]
    metrics: Mapping[str, Interval]
    confusion: list[Any] | None
    kinds: tuple[Metric, ...]

    @classmethod
    def of(cls, cases: Cases, probabilities: np.ndarray, *, seed: int = 0, replicates: int = REPLICATES) -> Scores:
        """Score predictions.

        Args:
            cases: what was predicted; their subjects are what is resampled.
            probabilities: ``(N, K)``, see :meth:`finetune.targets.base.Target.probabilities`; ``(S, N, K)`` of
                predictions that were made several times, whose scores are averaged.
            seed: of the bootstrap.
            replicates: of the bootstrap.

        Raises:
            DataError: the cases have no labels, or the predictions do not fit them.
        """
        labels, task, target = cases.known_labels, cases.task, cases.target
        first_NK = probabilities[0] if probabilities.ndim == 3 else probabilities
        return cls(
            images=len(cases),
            subjects=len(cases) if cases.subjects is None else len(np.unique(cases.subjects)),
            lacking=cases.lacking,
            metrics={
                kind.name: interval(
                    kind.score,
                    labels,
                    probabilities,
                    task,
                    seed=seed,
                    subjects=cases.subjects,
                    replicates=replicates,
                    limits=kind.limits,
                )
                for kind in target.metrics
            },
            confusion=confusion_matrix(labels, first_NK, task).tolist() if target.classifies else None,
            kinds=target.metrics,
        )

    def metric(self, name: str) -> Interval:
        """The interval of the metric called ``name``.

        Raises:
            DataError: the target has none of this name; those that it has are given.
        """
        if name not in self.metrics:
            raise DataError(f"these predictions have no {name}; they have {', '.join(self.metrics)}")
        return self.metrics[name]

    @property
    def auc(self) -> Interval:
        """As ``medmnist.Evaluator``; raises as :meth:`metric`."""
        return self.metric("auc")

    @property
    def acc(self) -> Interval:
        """As ``medmnist.Evaluator``; raises as :meth:`metric`."""
        return self.metric("acc")

    @property
    def balanced_acc(self) -> Interval:
        """Mean recall of the classes; raises as :meth:`metric`."""
        return self.metric("balanced_acc")

    @property
    def learnt(self) -> str:
        """A sentence where the deciding metric does not show that anything was learnt, or not how much; else empty."""
        kind, found = self.kinds[0], self.metrics[self.kinds[0].name]
        if math.isnan(found.estimate):
            why = ", ".join(self.lacking) or "the predictions or the labels are all the same"
            return f"The {kind.words} is undefined ({why}): it is not shown that anything was learnt."
        if math.isnan(found.low):
            return (
                f"Nothing shows how far the {kind.words} differs over subjects ({self._count}): it cannot be trusted."
            )
        if kind.chance is None or found.low > kind.chance:
            return ""
        if found.high < kind.chance:
            return (
                f"The {kind.words} is worse than {kind.chance:g}, which guessing gives: it is not shown that anything "
                "was learnt."
            )
        return f"The interval of the {kind.words} includes {kind.chance:g}: it is not shown that anything was learnt."

    @property
    def told(self) -> str:
        """The scores in words, for one line of output; it ends with :attr:`learnt` where that says something."""
        first, *others = (self._told(kind, whole=number == 0) for number, kind in enumerate(self.kinds))
        return f"{', '.join([first, *others, self._count])}{'. ' * bool(self.learnt)}{self.learnt}"

    @property
    def _count(self) -> str:
        images = f"{self.images} image{'s' * (self.images != 1)}"
        return images + (f" of {self.subjects} subject{'s' * (self.subjects != 1)}" * (self.subjects < self.images))

    def _told(self, kind: Metric, *, whole: bool) -> str:
        """One metric; with its interval where ``whole`` is wanted, or where it does not lie in [0, 1]."""
        found = self.metrics[kind.name]
        if math.isnan(found.estimate):
            return f"{kind.words} undefined" + (f": {', '.join(self.lacking)}" if whole and self.lacking else "")
        digits = _written if not kind.bounded else "{:.3f}".format
        words = f"{kind.words} {digits(found.estimate)}"
        if not whole and kind.bounded:
            return words
        if math.isnan(found.low):
            return f"{words} (no interval)" if whole else words
        return f"{words} ({digits(found.low)} to {digits(found.high)})"

    def as_json(self) -> dict[str, Any]:
        """As plain JSON types; each metric under its name."""
        return {
            "images": self.images,
            "subjects": self.subjects,
            "lacking": self.lacking,
            **{name: asdict(found) for name, found in self.metrics.items()},
            **({} if self.confusion is None else {"confusion": self.confusion}),
            "learnt": self.learnt,
        }

    def as_columns(self) -> dict[str, float | int | str]:
        """As flat columns of a table."""
        columns: dict[str, float | int | str] = {
            "test_images": self.images,
            "test_subjects": self.subjects,
            "lacking": "; ".join(self.lacking),
        }
        for name, found in self.metrics.items():
            columns |= {name: found.estimate, f"{name}_low": found.low, f"{name}_high": found.high}
        return columns


def _written(value: float) -> str:
    """Three decimals, or four digits of what is large or small: an error has whatever units the label has."""
    return f"{value:.3f}" if 0.01 <= abs(value) < 100 or value == 0 else f"{value:.4g}"
