"""Gradient training on few labels: one loop for a head on cached features and for a whole network on images.

Model selection is the choice of the number of steps. Every fold is trained in step with the others, the held-out loss
is averaged over them, and the refit on all given labels runs the same schedule up to the best step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from data_shards.support.errors import TrainingError
from finetune.objective import Objective
from finetune.spd.stiefel import optimizer_of
from finetune.splits import Folds
from finetune.steppers import STEPPERS, Drawing, Learner
from finetune.strategies import Stage
from pretrain.backbone.modes import hold_statistics


@dataclass(frozen=True)
class Recipe:
    """AdamW with linear warm-up and a cosine to zero, in every stage.

    Attributes:
        max_steps: length of the schedule, over all stages.
        drawing: how batches are drawn.
        stepper: name of what takes the steps.
        stepper_config: its options.
        evaluate_every: steps between two looks at the held-out labels.
        patience: looks without improvement after which selection ends.
        warmup: share of a stage that warms up.
        cycles: the cosine of the last stage falls so many times, each time from the peak (Huang et al., Snapshot
            ensembles, ICLR 2017, eq. 2).
    """

    max_steps: int
    drawing: Drawing
    stepper: str = "plain"
    stepper_config: Any = None
    evaluate_every: int = 10
    patience: int = 4
    warmup: float = 0.1
    cycles: int = 1


class Staged(Learner, Protocol):
    """A learner that says what moves."""

    def stages(self) -> Sequence[Stage]:
        """What moves, stage by stage."""
        ...


def factor(step: int, steps: int, warmup: float) -> float:
    """Share of the peak rate at a step of a cycle."""
    warmup_steps = max(1, round(warmup * steps))
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(1, steps - warmup_steps)))


def train(
    learner: Staged, objective: Objective, rows: np.ndarray, recipe: Recipe, report: dict[str, Any] | None = None
) -> Generator[int, None, None]:
    """Train on the cases at ``rows``; yields the number of steps done at every evaluation point.

    What does not move in a stage has no gradient in it and keeps its bits, statistics of batches among them.

    Args:
        learner: what is trained.
        objective: of all given cases.
        rows: the cases to train on.
        recipe: the schedule.
        report: takes up what the steppers say they did, and ``training``: the mean loss of the steps up to each
            evaluation point.

    Raises:
        TrainingError: the loss is not finite.
    """
    done = 0
    losses: list[float] = []
    logged: dict[str, list[float]] = {"steps": [], "loss": []}
    ends = cycle_ends(learner, recipe)
    for stage, lengths in zip(learner.stages(), _cycles(learner, recipe), strict=True):
        before = [(parameter, parameter.requires_grad) for parameter in learner.module.parameters()]
        moving = {id(parameter) for parameter in stage.parameters}
        for parameter, _ in before:
            parameter.requires_grad_(id(parameter) in moving)
        optimizer = optimizer_of(stage.groups)
        peaks = [group["lr"] for group in optimizer.param_groups]
        stepper = STEPPERS.named(recipe.stepper)(
            learner, objective, optimizer, rows, recipe.drawing, recipe.stepper_config
        )
        try:
            for share in (factor(step, length, recipe.warmup) for length in lengths for step in range(length)):
                for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                    group["lr"] = peak * share
                learner.module.train()
                hold_statistics(learner.module)
                losses.append(stepper.step(done))
                done += 1
                if done % recipe.evaluate_every == 0 or done in ends:
                    logged["steps"].append(done)
                    logged["loss"].append(float(np.mean(losses)))
                    losses.clear()
                    yield done
        finally:
            if report is not None:
                report |= stepper.report | {"training": logged}
            for parameter, needed in before:
                parameter.requires_grad_(needed)


def cycle_ends(learner: Staged, recipe: Recipe) -> list[int]:
    """The number of steps done at the end of each cycle of the last stage; the last of them ends the schedule."""
    *before, last = _cycles(learner, recipe)
    return np.cumsum([sum(map(sum, before)) + last[0], *last[1:]]).tolist()


def _cycles(learner: Staged, recipe: Recipe) -> list[list[int]]:
    """Lengths of the cycles of every stage, in steps; only the last stage has several."""
    share = np.cumsum([stage.share for stage in learner.stages()])
    *starts, _ = (round(recipe.max_steps * part) for part in (0.0, *(share / share[-1])))
    cuts = [starts[-1] + round((recipe.max_steps - starts[-1]) * part / recipe.cycles) for part in range(recipe.cycles)]
    return [[length] for length in np.diff(starts).tolist()] + [np.diff([*cuts, recipe.max_steps]).tolist()]


def fit_steps(
    learner: Staged,
    objective: Objective,
    rows: np.ndarray,
    recipe: Recipe,
    steps: int,
    at: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Train up to ``steps`` steps, one of the evaluation points of :func:`train`.

    Args:
        learner: what is trained.
        objective: of all given cases.
        rows: the cases to train on.
        recipe: the schedule.
        steps: where to end.
        at: called at every evaluation point with the number of steps done.

    Returns:
        What the steppers say they did.
    """
    report: dict[str, Any] = {}
    run = train(learner, objective, rows, recipe, report)
    for done in run:
        if at is not None:
            at(done)
        if done >= steps:
            break
    run.close()
    learner.module.eval()
    return report


@dataclass(frozen=True)
class Stopped:
    """The number of steps with the least held-out loss.

    Attributes:
        steps: that number.
        curve: held-out loss at every step looked at.
        held_out: log scores of the held-out cases of each fold at that step.
    """

    steps: int
    curve: Mapping[int, float]
    held_out: list[np.ndarray] = field(default_factory=list)


Build = Callable[[np.ndarray], Staged]
"""A new learner with the same initial weights every time; a head that is fitted first sees the rows alone."""


def choose_steps(build: Build, objective: Objective, folds: Folds, recipe: Recipe) -> Stopped:
    """Look for the number of steps with the least held-out loss.

    Training stops early when the loss, averaged over the folds, has not improved for ``patience`` looks.

    Args:
        build: makes a learner for the cases it is trained on.
        objective: of all given cases.
        folds: pairs of training and held-out positions; all are trained side by side.
        recipe: the schedule.
    """
    learners = [build(train_rows) for train_rows, _ in folds]
    runs = [train(learner, objective, fold[0], recipe) for learner, fold in zip(learners, folds, strict=True)]
    curve: dict[int, float] = {}
    best, kept = 0, []
    for done in zip(*runs, strict=True):
        pairs = zip(learners, folds, strict=True)
        said = [held_out_scores(learner, objective, held, recipe) for learner, (_, held) in pairs]
        curve[done[0]] = held_out_loss(objective, said, folds)
        leader = min(curve, key=lambda step: (curve[step], step))
        if leader != best:
            best, kept = leader, said
        if done[0] - best >= recipe.patience * recipe.evaluate_every:
            break
    for run in runs:
        run.close()
    return Stopped(best, curve, kept)


def held_out_loss(objective: Objective, said: Sequence[np.ndarray], folds: Folds) -> float:
    """Mean over the folds of the log loss of their held-out cases.

    Raises:
        TrainingError: it is not finite.
    """
    pairs = zip(said, folds, strict=True)
    loss = float(np.mean([objective.log_loss(torch.from_numpy(scores), held) for scores, (_, held) in pairs]))
    if not math.isfinite(loss):
        raise TrainingError(f"fine-tuning: the held-out loss is {loss}; try a smaller learning rate")
    return loss


def held_out_scores(learner: Learner, objective: Objective, rows: np.ndarray, recipe: Recipe) -> np.ndarray:
    """Log scores ``(M, C)`` of the cases at ``rows``, without augmentation."""
    learner.module.eval()
    parts = []
    with torch.no_grad():
        for start in range(0, len(rows), 8 * recipe.drawing.batch_size):
            part = rows[start : start + 8 * recipe.drawing.batch_size]
            parts.append(objective.log_scores(learner.logits(part, None)).numpy())
    return np.concatenate(parts)
