"""What a fine-tuning left in its folder, read back: predictions with their labels, and the record of the fit.

Shape suffixes: N cases, L labels or numbers a case has, C classes, labels or numbers, R repeats.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from data_shards.support.documents import CONFIG_FILE, read_mapping
from data_shards.support.errors import ConfigError, DataError, nearest
from data_shards.support.files import read_json
from data_shards.vocabulary import Task
from finetune.classifier.uncertainty import entropy
from finetune.scores.bootstrap import interval
from finetune.scores.metrics import confusion_matrix
from finetune.scoring import Scores
from finetune.targets import Target, create_target

PREDICTIONS, METRICS = "predictions.csv", "metrics.json"
CROSS_VALIDATION = "cross-validation"
ORDER = ("test", CROSS_VALIDATION, "val")
"""Which predictions a page is about, where there are several."""

GIVEN = "given for this page, so it may have been chosen with these cases in view"
HALF = "one half, since no threshold was chosen on held-out labels"


@dataclass(frozen=True)
class Results:
    """Labelled predictions of cases that the models did not see.

    Attributes:
        split: where the cases are from.
        how: how they came to be predicted, in words.
        target: what is told of a case.
        keys: a name per case that names nobody.
        labels: ``(N, L)``.
        said: ``(R, N, C)``, of each repeat of a cross-validation; one elsewhere.
        mean: ``(N, C)``, over the repeats: what decisions and curves are made from.
        subjects: ``(N,)``, which cases belong together; None where each is its own.
        seed: of the bootstrap.
        decided: ``(N, L)``: the class at the threshold, the likeliest of several, the labels above one half; numbers
            themselves.
        threshold: above which probability of the second class a case counts as it; None where there is none, or one for
            each fold.
        rule: how the threshold came about, in words; empty where there is none.
        sets: the answers that cannot be excluded, by case; empty where there are none.
        ends: ``(N, L, 2)``: of numbers the ends of their intervals; None where there are none.
        positive: place of the class that is looked for, of a binary target.
    """

    split: str
    how: str
    target: Target
    keys: tuple[str, ...]
    labels: np.ndarray
    said: np.ndarray
    mean: np.ndarray
    subjects: np.ndarray | None
    seed: int
    decided: np.ndarray
    threshold: float | None = None
    rule: str = ""
    sets: tuple[str, ...] = ()
    ends: np.ndarray | None = None
    positive: int = 1

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def task(self) -> Task:
        """How labels are to be read."""
        return self.target.task

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, labels or numbers."""
        return self.target.classes

    @property
    def binary(self) -> bool:
        """Whether there are two classes."""
        return self.task is Task.binary

    @cached_property
    def right(self) -> np.ndarray:
        """Whether the decision is right, ``(N,)``: all labels of a case; False for numbers, which are never."""
        right_N: np.ndarray = (self.decided == self.labels).all(axis=1)
        return right_N

    @cached_property
    def uncertainty(self) -> np.ndarray:
        """``(N,)``: entropy as a share of the largest possible; of numbers the width of the interval; NaN for none."""
        if self.target.classifies:
            return entropy(self.mean, self.task, normalised=True)
        if self.ends is None:
            return np.full(len(self), np.nan)
        width_N: np.ndarray = (self.ends[..., 1] - self.ends[..., 0]).mean(axis=1)
        return width_N

    @cached_property
    def scores(self) -> Scores:
        """Every metric of the target with its interval over subjects."""
        first_NC = self.said[0]
        kinds = self.target.metrics
        return Scores(
            images=len(self),
            subjects=len(self) if self.subjects is None else len(np.unique(self.subjects)),
            lacking=self._lacking,
            metrics={
                kind.name: interval(
                    kind.score, self.labels, self.said if len(self.said) > 1 else first_NC, self.task,
                    seed=self.seed, subjects=self.subjects, limits=kind.limits,
                )
                for kind in kinds
            },
            confusion=confusion_matrix(self.labels, first_NC, self.task).tolist() if self.target.classifies else None,
            kinds=kinds,
        )  # fmt: skip

    @property
    def _lacking(self) -> tuple[str, ...]:
        carried_NC = self.target.carried(self.labels)
        count_C = carried_NC.sum(axis=0)
        names = [name for name, count in zip(self.classes, count_C, strict=False) if not count]
        if self.task is not Task.multilabel:
            return tuple(f"class {name!r} has no image" for name in names)
        every = [name for name, count in zip(self.classes, count_C, strict=True) if count == len(self)]
        return (*(f"label {n!r} is on no image" for n in names), *(f"label {n!r} is on every image" for n in every))

    def at(self, threshold: float) -> Results:
        """The same with decisions at another threshold.

        Raises:
            ConfigError: the target is not binary, or it is no probability.
        """
        if not self.binary:
            raise ConfigError(f"a threshold is for two classes; the run tells {', '.join(self.classes)}")
        if not 0 < threshold < 1:
            raise ConfigError(f"the threshold is {threshold:g}, expected a probability between 0 and 1")
        of_positive_N = self.mean[:, self.positive] > threshold
        decided_N1 = np.where(of_positive_N, self.positive, 1 - self.positive)[:, None]
        second = threshold if self.positive else 1 - threshold
        return replace(self, decided=decided_N1, threshold=second, rule=GIVEN)

    def looking_for(self, name: str) -> Results:
        """The same with ``name`` as the class that is looked for.

        Raises:
            ConfigError: the target is not binary, or has no such class.
        """
        if not self.binary:
            raise ConfigError(f"one class to look for is for two classes; the run tells {', '.join(self.classes)}")
        if name not in self.classes:
            raise ConfigError(f"no class {name!r}{nearest(name, self.classes)}")
        return replace(self, positive=self.classes.index(name))


@dataclass(frozen=True)
class Run:
    """A whole run.

    Attributes:
        folder: where it lies.
        metrics: the record that ``finetune`` wrote.
        config: the resolved settings.
        results: the predictions, the most telling first; empty where no estimate was made.
    """

    folder: Path
    metrics: Mapping[str, Any]
    config: Mapping[str, Any]
    results: tuple[Results, ...] = ()


def is_run(folder: Path) -> bool:
    """Whether ``finetune`` wrote the folder."""
    return (folder / METRICS).is_file() and (folder / PREDICTIONS).is_file()


def read_run(folder: Path) -> Run:
    """Read the folder that ``finetune`` wrote.

    Raises:
        DataError: a file is missing or damaged, or another version wrote it.
    """
    metrics = read_json(folder / METRICS, DataError)
    for key in ("task", "data", "fit", "classes"):
        if key not in metrics:
            raise DataError(f"{folder / METRICS}: no {key!r}; the run is of another version, fine-tune again")
    config = read_mapping(folder / CONFIG_FILE)
    classes = [metrics["classes"][str(place)] for place in range(len(metrics["classes"]))]
    target = create_target(metrics["task"], classes)
    path = folder / PREDICTIONS
    try:
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a readable table: {error}") from None
    by_split: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        by_split.setdefault(row.get("split") or "", []).append(row)
    estimates, seed = metrics.get("estimates") or {}, int(metrics["fit"]["seed"])
    found = []
    for split in sorted(by_split, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER)):
        try:
            found.append(_results(target, split, by_split[split], estimates.get(split) or {}, seed))
        except (KeyError, ValueError) as error:
            raise DataError(f"{path}: split {split}: not what finetune writes: {error}") from None
    return Run(folder, metrics, config, tuple(found))


def _results(
    target: Target, split: str, rows: Sequence[Mapping[str, str]], estimate: Mapping[str, Any], seed: int
) -> Results:
    classes = target.classes
    said = "p({})".format if target.classifies else "predicted: {}".format
    mean_NC = _columns(rows, [said(name) for name in classes])
    repeats: list[np.ndarray] = []
    while f"repeat {len(repeats) + 1}: {said(classes[0])}" in rows[0]:
        repeats.append(_columns(rows, [f"repeat {len(repeats) + 1}: {said(name)}" for name in classes]))
    several = target.task is Task.multilabel or not target.classifies
    if several:
        labels_NL = _columns(rows, [f"label: {name}" for name in classes])
        labels_NL = labels_NL.astype(np.int64) if target.classifies else labels_NL
    else:
        labels_NL = np.array([[classes.index(row["label"])] for row in rows])
    decided_NL, threshold, rule = target.decide(mean_NC), None, ""
    if target.task is Task.binary:
        threshold, rule = 0.5, HALF
        if rows[0].get("at threshold"):
            decided_NL = np.array([[classes.index(row["at threshold"])] for row in rows])
            point = estimate.get("operating_point") or {}
            own = split == CROSS_VALIDATION
            threshold = None if own else float(point["threshold"])
            rule = f"chosen on held-out training labels for the {point.get('rule', 'best separation')}"
            rule += ", in each fold anew" if own else ""
    ends = None
    if not target.classifies and rows[0].get(f"from: {classes[0]}"):
        ends = np.stack([_columns(rows, [f"{end}: {name}" for name in classes]) for end in ("from", "to")], axis=-1)
    return Results(
        split=split,
        how=str(estimate.get("how") or split),
        target=target,
        keys=tuple(row["key"] for row in rows),
        labels=labels_NL,
        said=np.stack(repeats) if repeats else mean_NC[None],
        mean=mean_NC,
        subjects=np.array([int(row["subject"]) for row in rows]) if rows[0].get("subject") else None,
        seed=seed,
        decided=decided_NL,
        threshold=threshold,
        rule=rule,
        sets=tuple(row["set"] for row in rows) if rows[0].get("abstains") else (),
        ends=ends,
    )


def _columns(rows: Sequence[Mapping[str, str]], names: Sequence[str]) -> np.ndarray:
    return np.array([[float(row[name]) for name in names] for row in rows])
