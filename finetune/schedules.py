"""How long and how fast a whole network is trained: a few candidates, one of which is chosen within the given labels.

A network from random weights and a pretrained one do not want the same schedule, and a comparison in which one arm runs
the schedule of the other is decided beforehand. So every fit chooses its own: among the same candidates, by the same
rule, on a held-out part of its own labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from data_shards.support.errors import TrainingError
from finetune.training import Learner, Recipe, Targets, choose_steps, fit_steps, held_out_loss


@dataclass(frozen=True)
class Schedule:
    """One candidate.

    Attributes:
        steps: length, warm-up and decay included.
        rate: peak learning rate of the head; the rates of the layers follow it.
    """

    steps: int
    rate: float

    def __str__(self) -> str:
        return f"{self.steps} steps at {self.rate:g}"


SCHEDULES = (Schedule(100, 1e-3), Schedule(200, 1e-3), Schedule(100, 3e-3))
"""The first is what is used where nothing can be held out. More candidates would ask more of a few held-out images."""

Folds = Sequence[tuple[np.ndarray, np.ndarray]]
Build = Callable[[Schedule], Learner]


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Attributes:
        schedule: the candidate.
        steps: how many of its steps to run.
        held_out_loss: log loss of each candidate, where it was stopped; empty when nothing was held out.
    """

    schedule: Schedule
    steps: int
    held_out_loss: dict[str, float]


def candidates(steps: int | None, rate: float | None) -> list[Schedule]:
    """The schedules that agree with what is given; None leaves a quantity to be chosen."""
    agreeing = (Schedule(steps or each.steps, rate or each.rate) for each in SCHEDULES)
    return list(dict.fromkeys(agreeing))


def choose_schedule(
    build: Build, targets: Targets, folds: Folds, schedules: Sequence[Schedule], batch_size: int, seed: int, stop: bool
) -> Choice:
    """The candidate with the least held-out log loss; the first where there is nothing to choose or to hold out.

    Args:
        build: a new learner for a schedule, with the same initial weights every time.
        targets: of all given images.
        folds: pairs of training and held-out positions.
        schedules: the candidates.
        batch_size: images per step.
        seed: fixes the batches.
        stop: whether the number of steps is chosen, too; a schedule is run whole when it is not.

    Raises:
        TrainingError: the loss of every candidate became infinite or NaN.
    """
    if not folds or (len(schedules) == 1 and not stop):
        return Choice(schedules[0], schedules[0].steps, {})
    losses: dict[Schedule, float] = {}
    steps: dict[Schedule, int] = {}
    for schedule in schedules:
        recipe = Recipe(max_steps=schedule.steps, batch_size=batch_size)
        try:
            losses[schedule], steps[schedule] = _tried(build, targets, folds, schedule, recipe, seed, stop)
        except TrainingError as error:
            losses[schedule], steps[schedule], last = math.inf, 0, error
    best = min(schedules, key=losses.__getitem__)
    if not math.isfinite(losses[best]):
        raise last
    return Choice(best, steps[best], {str(schedule): loss for schedule, loss in losses.items()})


def _tried(
    build: Build, targets: Targets, folds: Folds, schedule: Schedule, recipe: Recipe, seed: int, stop: bool
) -> tuple[float, int]:
    """Held-out loss of one candidate, and the steps after which it was taken."""
    if stop:
        best, curve = choose_steps(lambda: build(schedule), targets, folds, recipe, seed)
        return curve[best], best
    losses = []
    for train, held_out in folds:
        learner = build(schedule)
        fit_steps(learner, targets, train, recipe, seed, recipe.max_steps)
        losses.append(held_out_loss(learner, targets, held_out, recipe))
    return float(np.mean(losses)), recipe.max_steps
