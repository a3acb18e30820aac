"""The fits of the audit of DBA on medical images: the network of the audit of digits, on pixels or features."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.studies.dba_fits import Arm, Length, Terms, train
from benchmarks.studies.dba_learner import Vectors
from benchmarks.studies.frozen_sets import FrozenSet
from data_shards.support.errors import TrainingError
from finetune.objective import Objective
from finetune.scores.metrics import accuracy, auc
from finetune.splits import carved, cross_folds
from finetune.study.probes import linear_probe

LEAST_SPREAD = 0.1
"""Of the mean one: what hardly varies over a few images may do so over others."""


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
