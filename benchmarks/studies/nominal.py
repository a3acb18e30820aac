"""Planes and volumes at their nominal size: short pretraining on them, and what features tell with few labels."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.studies.quick import configured, train_on
from benchmarks.studies.runs import PLANES, SHAPES, VIEWS, VOLUMES, shards, source
from finetune.cases import Cases
from finetune.readers import read_cases
from finetune.scores.metrics import auc
from finetune.splits import selection_folds, strata
from finetune.study.probes import knn_probe, linear_probe
from finetune.subsets import Budget, draw
from pretrain.module import PretrainModule

DRAWS = range(3)
BUDGETS = (10, 50)
SIMCLR: dict[str, Any] = {"simclr": {"temperature": 0.2}}
MEAN = "mean of the four"

Splits = Mapping[str, Cases]


@dataclass(frozen=True)
class Ground:
    """What a network is pretrained on and read on.

    Attributes:
        name: of the ground.
        sets: MedMNIST names.
        size: of the images.
        rows: images of a step.
        steps: of a pretraining.
        rate: peak learning rate.
        views: of the pretraining.
    """

    name: str
    sets: tuple[str, ...]
    size: tuple[int, ...]
    rows: int
    steps: int
    rate: float
    views: dict[str, Any]

    def splits(self, folder: Path) -> dict[str, Splits]:
        """The cases of each set; its shards are written into ``folder`` unless they are there."""
        return {name: read_cases(shards(folder / "shards", source(name))) for name in self.sets}


GROUNDS = (
    Ground("planes", PLANES, (28, 28), 32, 120, 0.002, VIEWS),
    Ground("volumes", VOLUMES, (28, 28, 28), 12, 40, 0.0005, SHAPES),
)


def pretrain(
    ground: Ground,
    modules: Sequence[PretrainModule],
    seed: int,
    steps: int,
    splits: Mapping[str, Splits],
    taken: list[float] | None = None,
) -> list[float]:
    """Train networks beside each other on the sets of a ground.

    Args:
        ground: what is seen and how.
        modules: new networks with :data:`SIMCLR`; are trained.
        seed: of draws and views.
        steps: how many.
        splits: of each set.
        taken: see :func:`~benchmarks.studies.quick.train_on`, as is what is returned.
    """
    config = configured({
        "seed": seed, "views": ground.views, "objectives": SIMCLR,
        "optimizer": {"name": "adamw", "lr": ground.rate, "weight_decay": 0.05},
    })  # fmt: skip
    return train_on(modules, config, [each["train"] for each in splits.values()], ground.rows, steps, taken)


@dataclass(frozen=True)
class Reading:
    """Features and what classifies them.

    Attributes:
        probe: ``kNN`` or ``linear``.
        features: of the split ``train``, and of ``test`` where it is to be predicted, ``(N, D)`` each.
    """

    probe: Literal["kNN", "linear"]
    features: Mapping[str, np.ndarray]


def few_label_scores(
    splits: Splits, readings: Mapping[str, Reading], draws: Sequence[int] = DRAWS
) -> dict[str, dict[str, float]]:
    """AUC by reading and split, ``left`` being what a draw left of the training images.

    Args:
        splits: ``train``, and ``test`` where a reading has features of it.
        readings: by name; all are given the same draws.
        draws: seeds of the draws of labels.

    Returns:
        Means over :data:`BUDGETS` and the draws.
    """
    pool = splits["train"]
    scores: dict[str, dict[str, list[float]]] = {name: {"left": [], "test": []} for name in readings}
    for budget, number in itertools.product(BUDGETS, draws):
        rows = draw(pool, Budget(per_class=budget), number).positions
        left = np.setdiff1d(np.arange(len(pool)), rows)
        given = pool[rows]
        folds = selection_folds(strata(given.known_labels, given.task), number)
        for name, reading in readings.items():
            train = reading.features["train"]
            asked = {"left": (train[left], pool[left])}
            if "test" in reading.features:
                asked["test"] = (reading.features["test"], splits["test"])
            together = np.concatenate([features for features, _ in asked.values()])
            if reading.probe == "kNN":
                said = knn_probe(train[rows], given.known_labels, together, pool.target)
            else:
                said = linear_probe(train[rows], given.known_labels, together, pool.target, folds=folds)
            parts = np.split(said.probabilities, np.cumsum([len(cases) for _, cases in asked.values()])[:-1])
            for (split, (_, cases)), probabilities in zip(asked.items(), parts, strict=True):
                scores[name][split].append(float(auc(cases.known_labels, probabilities, cases.task)))
    return {
        name: {split: float(np.mean(values)) for split, values in each.items() if values}
        for name, each in scores.items()
    }


def collected(
    records: Sequence[Mapping[str, Mapping[str, Mapping[str, float]]]], split: str
) -> dict[tuple[str, str], list[float]]:
    """Scores by set and reading, one for each seed, and those of the mean of the sets.

    Args:
        records: of each seed, what :func:`few_label_scores` gave of each set.
        split: ``left`` or ``test``.
    """
    found: dict[tuple[str, str], list[float]] = {}
    for sets in records:
        for reading in next(iter(sets.values())):
            values = {name: each[reading][split] for name, each in sets.items()}
            for name, value in (*values.items(), (MEAN, float(np.mean(list(values.values()))))):
                found.setdefault((name, reading), []).append(value)
    return found
