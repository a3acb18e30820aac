"""The fits of the audit of DBA on medical images: the network of the audit of digits, on pixels or features."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.studies.dba_fits import Arm, Length, Terms, train
from benchmarks.studies.frozen_sets import FrozenSet
from data_shards.support.errors import ConfigError, TrainingError
from finetune.fit.network import Readout
from finetune.heads import CaseFeatures
from finetune.heads.linear import LinearHead
from finetune.objective import Objective
from finetune.random_state import seeded
from finetune.scores.metrics import accuracy, auc
from finetune.splits import carved, cross_folds
from finetune.study.probes import linear_probe
from finetune.targets import Target

WIDTH = 64
LEAST_SPREAD = 0.1
"""Of the mean one: what hardly varies over a few images may do so over others."""


class Perceptron(nn.Module):
    """64 units with a ReLU on features, and a linear head, as steppers know it.

    Args:
        inputs: numbers of a case.
        target: what is told of it.
    """

    def __init__(self, inputs: int, target: Target) -> None:
        super().__init__()
        self.hidden = nn.Linear(inputs, WIDTH)
        head = LinearHead(WIDTH, target.outputs, LinearHead.Config(reads="embedding"))
        head.linear.reset_parameters()
        self.readout = Readout.of(head, target)

    def forward(self, features_BD: Tensor) -> Tensor:
        """Logits ``(B, K)``."""
        logits: Tensor = self.readout(CaseFeatures(self.hidden(features_BD).relu()))
        return logits


class Vectors:
    """A perceptron and vectors for it; which rows it was trained on is kept.

    Args:
        features_ND: of all cases, standardised.
        target: what is told of them.
        seed: of the weights.

    Attributes:
        seen_N: whether a row took part in a training step, bool.
    """

    def __init__(self, features_ND: Tensor, target: Target, seed: int) -> None:
        self.features_ND = features_ND
        self.seen_N = np.zeros(len(features_ND), dtype=bool)
        with seeded(seed):
            self.module = Perceptron(features_ND.shape[1], target)

    @property
    def at_once(self) -> int:
        """There is always room."""
        return len(self.features_ND)

    @property
    def readout(self) -> Readout:
        """The last layer."""
        return self.module.readout

    def logits(self, rows: np.ndarray, step: int | None) -> Tensor:
        """Logits; in a training step the rows count as seen."""
        if step is not None:
            self.seen_N[rows] = True
        found: Tensor = self.module(self.features_ND[torch.from_numpy(rows)])
        return found

    def losses(self, objective: Objective, rows: np.ndarray, step: int) -> Tensor:
        """The loss of each row in a training step."""
        return objective.per_case(self.logits(rows, step), rows)

    def mixed(self, rows: np.ndarray, step: int, share: float) -> tuple[Tensor, np.ndarray]:
        """Not here."""
        raise ConfigError("the audit mixes no images")


@dataclass(frozen=True)
class Given:
    """The labels of a draw.

    Attributes:
        rows: which training images they are of.
        labels_NL: of all training images, some of those at ``rows`` flipped.
        flipped: so many.
    """

    rows: np.ndarray
    labels_NL: np.ndarray
    flipped: int

    @classmethod
    def of(cls, data: FrozenSet, rows: np.ndarray, share: float, seed: int) -> Given:
        """A draw in which a share of the labels of each class is that of another class, whichever.

        Args:
            data: the set.
            rows: the draw.
            share: of wrong labels.
            seed: of which they are.
        """
        labels_NL = data.train.known_labels.copy()
        generator, classes = np.random.default_rng([seed, 4]), len(data.train.classes)
        flipped = 0
        for label in range(classes):
            members = rows[data.train.known_labels[rows, 0] == label]
            wrong = generator.choice(members, round(share * len(members)), replace=False)
            others = np.delete(np.arange(classes), label)
            labels_NL[wrong, 0] = generator.choice(others, len(wrong))
            flipped += len(wrong)
        return cls(rows, labels_NL, flipped)


def fit(arm: Arm | None, data: FrozenSet, given: Given, length: Length, seed: int) -> dict[str, Any]:
    """Choose terms and steps within the given labels, train on all of them, predict the test split once.

    Args:
        arm: how; None: the penalised linear optimum, to compare with.
        data: the set.
        given: its labels.
        length: of the training.
        seed: of weights, batches and folds.

    Returns:
        The choice, the scores, and how many different training images were seen.

    Raises:
        AssertionError: the arm has seen an image that it was not given.
    """
    target, rows = data.train.target, given.rows
    center_D, spread_D = data.train_ND[rows].mean(axis=0), data.train_ND[rows].std(axis=0)
    scale_D = np.maximum(spread_D, LEAST_SPREAD * spread_D.mean())
    train_ND = (data.train_ND - center_D) / scale_D
    test_MD, truth_ML = (data.test_MD - center_D) / scale_D, data.test.known_labels
    row: dict[str, Any] = {"images": len(rows), "flipped": given.flipped}
    if arm is None:
        folds = cross_folds(target.strata(given.labels_NL[rows]), seed)
        probe = linear_probe(train_ND[rows], given.labels_NL[rows], test_MD, target, folds=folds)
        said, row["distinct"] = probe.probabilities, len(rows)
    else:
        objective = Objective.of(target, given.labels_NL, balanced=False, drawn_evenly=False, loss="nll")
        vectors_ND = torch.from_numpy(train_ND.astype(np.float32))
        for terms, looks in ranked(arm, vectors_ND, objective, rows, length, seed):
            learner = Vectors(vectors_ND, target, seed)
            with contextlib.suppress(TrainingError):  # it diverged; the next best is taken
                report = train(arm, terms, learner, objective, rows, Length(looks, length.steps), seed, _nothing)
                break
        else:
            raise TrainingError(f"{arm.name} diverges by all of its terms")
        seen = np.flatnonzero(learner.seen_N)
        assert np.isin(seen, rows).all(), f"{arm.name} has seen images that are not of the draw"
        with torch.no_grad():
            scores = target.log_scores(learner.module(torch.from_numpy(test_MD.astype(np.float32))).double())
        said = target.probabilities(scores.numpy())
        row |= {
            "distinct": len(seen), "terms": vars(terms), "steps": looks * length.steps, "report": _short(report),
        }  # fmt: skip
    task = data.train.task
    return row | {"auc": float(auc(truth_ML, said, task)), "accuracy": float(accuracy(truth_ML, said, task))}


def ranked(
    arm: Arm, features_ND: Tensor, objective: Objective, rows: np.ndarray, length: Length, seed: int
) -> list[tuple[Terms, int]]:
    """Terms and looks by their held-out log loss on a part carved from the draw, the least first.

    See :func:`finetune.splits.carved`. By which training diverges they are left out. An arm with one set of terms has
    nothing to choose.
    """
    if len(arm.terms) == 1:
        return [(arm.terms[0], length.looks)]
    ((fitted, held),) = carved(objective.target.strata(objective.labels[rows]), seed)
    losses: dict[tuple[Terms, int], float] = {}
    for terms in arm.terms:
        learner = Vectors(features_ND, objective.target, seed)
        curve: list[float] = []

        def look(learner: Vectors = learner, curve: list[float] = curve) -> None:
            logits = learner.logits(rows[held], None)
            curve.append(objective.log_loss(objective.log_scores(logits), rows[held]))

        with contextlib.suppress(TrainingError):
            train(arm, terms, learner, objective, rows[fitted], length, seed, look)
        losses |= {(terms, number + 1): loss for number, loss in enumerate(curve) if math.isfinite(loss)}
    return sorted(losses, key=losses.__getitem__)


def _nothing() -> None:
    """Nobody looks at the last fit before it ends."""


def _short(report: dict[str, Any]) -> dict[str, Any]:
    """Numbers of a stepper's report, and means of its curves."""
    curves: dict[str, Sequence[float]] = report.get("batches", {})
    means = {f"mean_{name}": float(np.mean(values)) for name, values in curves.items() if len(values)}
    return {name: value for name, value in report.items() if isinstance(value, int | float)} | means
