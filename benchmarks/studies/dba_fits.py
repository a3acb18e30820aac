"""The fits of the audit of DBA: a small network on digits, trained by a stepper, every image that it sees counted."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.studies.dba_learner import Vectors
from finetune.objective import Objective
from finetune.splits import selection_folds
from finetune.steppers import STEPPERS, Drawing, Learner, Stepper
from finetune.targets import create_target

BATCH = 128


@dataclass(frozen=True)
class Terms:
    """Learning rate, weight decay and batch size."""

    rate: float = 0.01
    weight_decay: float = 1e-4
    batch_size: int = BATCH

    def __str__(self) -> str:
        return f"{self.rate:g}, {self.weight_decay:g}, {self.batch_size}"


@dataclass(frozen=True)
class Arm:
    """How a network is trained.

    Attributes:
        name: as tables show it.
        stepper: name of what takes the steps, or its class.
        options: of the stepper.
        adam: the optimizer is Adam and not SGD with Nesterov momentum 0.9.
        terms: from which those with the best held-out accuracy are chosen; a single one is the default.
        redraws: it is meant to see more images than it is given.
    """

    name: str
    stepper: str | type[Stepper] = "plain"
    options: Mapping[str, Any] = field(default_factory=dict)
    adam: bool = False
    terms: Sequence[Terms] = (Terms(),)
    redraws: bool = False

    @property
    def kind(self) -> type[Stepper]:
        """The class of its stepper."""
        return STEPPERS.named(self.stepper) if isinstance(self.stepper, str) else self.stepper

    @property
    def config(self) -> Any:
        """The options, checked."""
        if isinstance(self.stepper, str):
            return STEPPERS.config(self.stepper, self.options)
        return self.stepper.Config(**self.options)


def objective_of(digit_N: np.ndarray) -> Objective:
    """Cross-entropy of all images there are."""
    target = create_target("multiclass", [str(digit) for digit in range(10)])
    labels_N1 = digit_N[:, None].astype(np.int64)
    return Objective.of(target, labels_N1, balanced=False, drawn_evenly=False, loss="nll")


@dataclass(frozen=True)
class Length:
    """How long every arm is trained on a subset: so many optimizer steps, whatever its batch size.

    Attributes:
        looks: how often the network is looked at, in equal distances; the last time is the end.
        steps: between two looks.
    """

    looks: int
    steps: int

    @classmethod
    def of(cls, images: int, epochs: int, every: int) -> Length:
        """So many passes over a subset in batches of the default size, with a look after ``every`` of them."""
        return cls(epochs // every, every * math.ceil(images / BATCH))

    @property
    def total(self) -> int:
        """Optimizer steps."""
        return self.looks * self.steps


def train(
    arm: Arm, terms: Terms, learner: Learner, objective: Objective, rows: np.ndarray, length: Length, seed: int,
    look: Callable[[], None],
) -> dict[str, Any]:  # fmt: skip
    """Train, with constant rates; returns what the stepper says it did.

    Args:
        arm: how.
        terms: the rate, weight decay and batch size.
        learner: is trained.
        objective: of all images.
        rows: the images to train on.
        length: of the training.
        seed: of the batches.
        look: is called at each look.
    """
    parameters = list(learner.module.parameters())
    optimizer: torch.optim.Optimizer
    if arm.adam:
        optimizer = torch.optim.Adam(parameters, lr=terms.rate, weight_decay=terms.weight_decay)
    else:
        optimizer = torch.optim.SGD(
            parameters, lr=terms.rate, momentum=0.9, nesterov=True, weight_decay=terms.weight_decay
        )
    drawing = Drawing(terms.batch_size, seed, clip_norm=math.inf)
    stepper = arm.kind(learner, objective, optimizer, rows, drawing, arm.config)
    for step in range(length.total):
        stepper.step(step)
        if (step + 1) % length.steps == 0:
            with torch.no_grad():
                look()
    return stepper.report


@dataclass(frozen=True)
class Chosen:
    """What held-out parts of the subset said.

    Attributes:
        terms: with the best accuracy at the end, the least loss among equals.
        look: with the best accuracy by these terms, counted from 0, the least loss among equals.
    """

    terms: Terms
    look: int


def choose(arm: Arm, images_N784: Tensor, objective: Objective, rows: np.ndarray, length: Length, seed: int) -> Chosen:
    """Choose terms and steps on parts carved from the subset, see :func:`finetune.splits.selection_folds`."""
    stratum_N = objective.target.strata(objective.labels)
    folds = selection_folds(stratum_N[rows], seed)
    curves: dict[Terms, np.ndarray] = {}
    for terms in arm.terms:
        each = []
        for fit, held in folds:
            learner = Vectors(images_N784, objective.target, seed)
            curve: list[tuple[float, float]] = []

            def look(learner: Vectors = learner, held: np.ndarray = rows[held], into: list[Any] = curve) -> None:
                logits = learner.logits(held, None)
                right = logits.argmax(1).numpy() == objective.labels[held, 0]
                into.append((float(right.mean()), -float(objective.per_case(logits, held).mean())))

            train(arm, terms, learner, objective, rows[fit], length, seed, look)
            each.append(curve)
        curves[terms] = np.mean(each, axis=0)
    best = max(curves, key=lambda terms: tuple(curves[terms][-1]))
    return Chosen(best, max(range(length.looks), key=lambda number: tuple(curves[best][number])))


def fit(
    arm: Arm, images_N784: Tensor, objective: Objective, rows: np.ndarray, length: Length, seed: int,
    test: tuple[Tensor, Tensor],
) -> dict[str, Any]:  # fmt: skip
    """Choose within the subset, train on all of it, and look at the test split.

    An arm that redraws its subset has nothing to choose by: its terms are the default ones.

    Args:
        arm: how.
        images_N784: of the whole training split.
        objective: of the same.
        rows: the subset.
        length: of the training.
        seed: of weights, batches and folds.
        test: images and digits.

    Returns:
        The choice, accuracies on the test split at every look, and how many different training images were seen.

    Raises:
        AssertionError: the arm has seen an image that it was not given.
    """
    chosen = None if arm.redraws else choose(arm, images_N784, objective, rows, length, seed)
    terms = arm.terms[0] if chosen is None else chosen.terms
    learner = Vectors(images_N784, objective.target, seed)
    curve: list[float] = []
    report = train(
        arm, terms, learner, objective, rows, length, seed,
        lambda: curve.append(float((learner.module(test[0]).argmax(1) == test[1]).double().mean())),
    )  # fmt: skip
    seen = np.flatnonzero(learner.seen_N)
    assert arm.redraws or np.isin(seen, rows).all(), f"{arm.name} has seen images that are not of the subset"
    return {
        "arm": arm.name,
        "images": len(rows),
        "distinct": len(seen),
        "steps": length.total,
        "terms": vars(terms),
        "validated": None if chosen is None else chosen.look,
        "test": curve,
        "report": report,
    }
