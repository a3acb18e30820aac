"""How long and how fast a whole network is trained: a few candidates, one of which is chosen within the given labels.

A network from random weights and a pretrained one do not want the same schedule, and a comparison in which one arm runs
the schedule of the other is decided beforehand. So every fit chooses its own: among the same candidates, by the same
rule, on a held-out part of its own labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from data_shards.support.errors import TrainingError
from finetune.fit.loop import Recipe, Staged, Stopped, choose_steps, fit_steps, held_out_loss, held_out_scores
from finetune.objective import Objective
from finetune.splits import Folds


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

BuildFor = Callable[[Schedule, np.ndarray], Staged]
"""A new learner for a schedule and the cases it is trained on, with the same initial weights every time."""


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Attributes:
        schedule: the candidate.
        steps: how many of its steps to run.
        held_out_loss: log loss of each candidate, where it was stopped; empty when nothing was held out.
        held_out: log scores of the held-out cases of each fold by the chosen candidate.
        curve: held-out log loss of the chosen candidate at every step looked at.
    """

    schedule: Schedule
    steps: int
    held_out_loss: dict[str, float]
    held_out: list[np.ndarray] = field(default_factory=list)
    curve: Mapping[int, float] = field(default_factory=dict)


def candidates(steps: int | None, rate: float | None) -> list[Schedule]:
    """The schedules that agree with what is given; None leaves a quantity to be chosen."""
    agreeing = (Schedule(steps or each.steps, rate or each.rate) for each in SCHEDULES)
    return list(dict.fromkeys(agreeing))


def choose_schedule(
    build: BuildFor,
    objective: Objective,
    folds: Folds,
    schedules: Sequence[Schedule],
    recipe: Callable[[Schedule], Recipe],
    *,
    stop: bool,
    scored: bool,
) -> Choice:
    """The candidate with the least held-out log loss; the first where there is nothing to choose or to hold out.

    Args:
        build: makes a learner.
        objective: of all given cases.
        folds: pairs of training and held-out positions.
        schedules: the candidates.
        recipe: of a candidate.
        stop: whether the number of steps is chosen, too; a schedule is run whole when it is not.
        scored: whether held-out log scores are wanted even where there is nothing to choose.

    Raises:
        TrainingError: the loss of every candidate became infinite or NaN.
    """
    if not folds or (len(schedules) == 1 and not stop and not scored):
        return Choice(schedules[0], schedules[0].steps, {})
    found: dict[Schedule, Stopped] = {}
    losses: dict[Schedule, float] = {}
    for schedule in schedules:
        try:
            found[schedule] = _tried(build, objective, folds, schedule, recipe(schedule), stop)
            losses[schedule] = found[schedule].curve[found[schedule].steps]
        except TrainingError as error:
            losses[schedule], last = math.inf, error
    best = min(schedules, key=losses.__getitem__)
    if not math.isfinite(losses[best]):
        raise last
    said = {str(schedule): loss for schedule, loss in losses.items()}
    return Choice(best, found[best].steps, said, found[best].held_out, found[best].curve)


def _tried(
    build: BuildFor, objective: Objective, folds: Folds, schedule: Schedule, recipe: Recipe, stop: bool
) -> Stopped:
    """One candidate, taken at its best step or at its end."""
    if stop:
        return choose_steps(lambda rows: build(schedule, rows), objective, folds, recipe)
    said = []
    for train, held_out in folds:
        learner = build(schedule, train)
        fit_steps(learner, objective, train, recipe, recipe.max_steps)
        said.append(held_out_scores(learner, objective, held_out, recipe))
    return Stopped(recipe.max_steps, {recipe.max_steps: held_out_loss(objective, said, folds)}, said)
