"""The table of an evaluation: one row for each model, dataset, protocol, budget, seed, part of the cases, and score.

It is tidy (Wickham, Journal of Statistical Software 59, 2014): every row is one number with all that it depends on, so
that any program can filter, group and draw it without knowing how it came about.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from data_shards.support.files import finite, write_atomic, write_json
from finetune.cases import Cases
from finetune.scores.bootstrap import Interval
from finetune.study.arms import Arm
from finetune.study.compare import ComparisonRow
from finetune.study.constant import constant
from finetune.study.measures import Measure, measured
from finetune.study.probing import EvaluationRow
from finetune.study.representations import RawPixels
from finetune.subsets import indices_sha256
from finetune.tables import as_csv

CSV, JSON = "results.csv", "results.json"
ALL = "all"
"""The budget of protocols that use every label of the training split."""

COLUMNS = (
    "dataset", "official", "task", "model", "weights", "protocol", "arm", "budget", "seed", "labelled_images",
    "distinct_labelled_images", "index_sha256", "train_sha256", "test_sha256", "selection", "group_by", "group",
    "class", "metric", "value", "low", "high", "level", "constant", "images", "subjects", "lacking",
)  # fmt: skip
"""In their order; docs/evaluation.md says what each is."""


@dataclass(frozen=True)
class Said:
    """Predictions of the test split, and how they came about.

    Attributes:
        model: name of the network; ``raw pixels`` and ``constant`` where there is none.
        weights: ``pretrained``, ``random`` or ``none``.
        protocol: ``constant``, ``knn``, ``linear``, ``few_label`` or ``full``.
        arm: of a comparison, by name; the protocol else.
        budget: labels allowed, in words.
        seed: of draws, weights, splits and the bootstrap.
        index_sha256: of the indices of the labelled images in the training split.
        labelled_images: how many.
        distinct_labelled_images: different ones among them.
        selection: how hyper-parameters were chosen, in words.
        probabilities_NC: what was said.
        known: intervals of scores that are computed already.
    """

    model: str
    weights: str
    protocol: str
    arm: str
    budget: str
    seed: int
    index_sha256: str
    labelled_images: int
    distinct_labelled_images: int
    selection: str
    probabilities_NC: np.ndarray
    known: Mapping[str, Interval] = field(default_factory=dict)

    @classmethod
    def by_probe(cls, row: EvaluationRow) -> Said:
        """Of a probe, which is fitted to all labels."""
        return cls(
            model=row.model,
            weights=row.weights,
            protocol=row.probe,
            arm=row.probe,
            budget=ALL,
            seed=row.seed,
            index_sha256=indices_sha256(np.arange(row.labelled_images)),
            labelled_images=row.labelled_images,
            distinct_labelled_images=row.distinct_labelled_images,
            selection=row.selection,
            probabilities_NC=row.probabilities,
            known=row.scores.metrics,
        )

    @classmethod
    def by_arm(cls, row: ComparisonRow, arm: Arm, protocol: str) -> Said:
        """Of an arm of a comparison."""
        return cls(
            model=arm.model or RawPixels.model,
            weights=arm.weights if arm.model else "none",
            protocol=protocol,
            arm=arm.name,
            budget=row.budget,
            seed=row.seed,
            index_sha256=row.index_sha256,
            labelled_images=row.labelled_images,
            distinct_labelled_images=row.distinct_labelled_images,
            selection=row.selection,
            probabilities_NC=row.probabilities,
            known=row.scores.metrics,
        )


class Tidy:
    """The rows of one dataset.

    Args:
        train: its training split.
        test: its test split.
        seed: of the constant's bootstrap.
    """

    def __init__(self, train: Cases, test: Cases, seed: int) -> None:
        self._train, self._test = train, test
        self._trivial = Said(
            model="constant",
            weights="none",
            protocol="constant",
            arm="constant",
            budget=ALL,
            seed=seed,
            index_sha256=indices_sha256(np.arange(len(train))),
            labelled_images=len(train),
            distinct_labelled_images=train.distinct_images(),
            selection="none: the shares of the classes in the training split, or the mean of the numbers",
            probabilities_NC=constant(train, len(test)),
        )

    @cached_property
    def trivial(self) -> dict[tuple[str, str, str, str], Measure]:
        """What the constant scores, by what is measured."""
        said = self._trivial
        return {measure.key: measure for measure in measured(self._test, said.probabilities_NC, seed=said.seed)}

    @cached_property
    def _data(self) -> dict[str, Any]:
        train, test = self._train, self._test
        hashes = {"train_sha256": train.content_sha256(), "test_sha256": test.content_sha256()}
        return {"dataset": test.name, "official": test.official, "task": test.task.name, **hashes}

    def constant(self) -> Iterator[dict[str, Any]]:
        """The rows of what is said without looking."""
        for measure in self.trivial.values():
            yield self._row(self._trivial, measure)

    def rows(self, said: Said) -> Iterator[dict[str, Any]]:
        """The rows of one set of predictions."""
        for measure in measured(self._test, said.probabilities_NC, seed=said.seed, known=said.known):
            yield self._row(said, measure)

    def _row(self, said: Said, measure: Measure) -> dict[str, Any]:
        value = measure.value
        content = {
            **self._data,
            **{name: number for name, number in vars(said).items() if name in COLUMNS},
            "group_by": measure.group_by,
            "group": measure.group,
            "class": measure.label,
            "metric": measure.metric,
            "value": value.estimate,
            "low": value.low,
            "high": value.high,
            "level": value.level,
            "constant": self.trivial[measure.key].value.estimate,
            "images": measure.images,
            "subjects": measure.subjects,
            "lacking": measure.lacking,
        }
        return {name: content[name] for name in COLUMNS}


def write_tidy(rows: Iterable[dict[str, Any]], folder: Path) -> None:
    """Write ``results.csv`` and ``results.json``, the same rows in the same order.

    What is not defined is null in the one and an empty cell in the other.
    """
    plain = [finite(row) for row in rows]
    write_json(folder / JSON, {"columns": COLUMNS, "rows": plain})
    write_atomic(folder / CSV, as_csv([{name: _cell(value) for name, value in row.items()} for row in plain]))


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else value
