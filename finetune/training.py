"""Gradient training on few labels: one loop for a head on cached features and for a whole network on images.

Model selection is the choice of the number of steps. Every candidate is trained in step with the others, the held-out
loss is averaged over the folds, and the refit on all given labels runs the same schedule up to the best step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from data_shards.support.errors import TrainingError
from data_shards.vocabulary import Task
from finetune.objective import loss_per_image


@dataclass(frozen=True)
class Recipe:
    """AdamW with linear warm-up and a cosine to zero.

    Attributes:
        max_steps: length of the schedule.
        batch_size: labelled images per step; all of them when they are fewer.
        evaluate_every: steps between two looks at the held-out labels.
        patience: looks without improvement after which selection ends.
        warmup: share of the schedule that warms up.
        clip_norm: bound on the norm of the gradient.
    """

    max_steps: int
    batch_size: int
    evaluate_every: int = 10
    patience: int = 4
    warmup: float = 0.1
    clip_norm: float = 1.0


class Learner(Protocol):
    """What is trained, and how it is applied to the given images."""

    module: nn.Module

    def groups(self) -> list[dict[str, Any]]:
        """Optimizer groups, each with its peak learning rate."""
        ...

    @property
    def at_once(self) -> int:
        """How many images memory has room for in a training step."""
        ...

    def logits(self, rows: np.ndarray, step: int | None) -> Tensor:
        """Logits of the given images at ``rows``; augmented for training step ``step``, plain when it is None."""
        ...


@dataclass(frozen=True)
class Targets:
    """What the given images are to be recognised as.

    Attributes:
        values: as :func:`finetune.objective.column_targets` makes them.
        weights: ``(N,)`` sample weights of mean 1.
        offset: ``(K,)``, added to logits that were trained with these weights to give those of the given prevalence,
            see :mod:`finetune.objective`.
        task: how the values are to be read.
    """

    values: Tensor
    weights: Tensor
    offset: Tensor
    task: Task

    def loss(self, logits_BK: Tensor, rows: np.ndarray) -> Tensor:
        """Mean weighted negative log likelihood of the images at ``rows``: what training minimises."""
        index = torch.from_numpy(rows)
        values, weights = self.values[index].to(logits_BK.device), self.weights[index].to(logits_BK.device)
        return (weights * loss_per_image(logits_BK, values, self.task)).mean()

    def log_loss(self, logits_BK: Tensor, rows: np.ndarray) -> Tensor:
        """Mean negative log likelihood of the images at ``rows`` by the probabilities that are given out."""
        values = self.values[torch.from_numpy(rows)].to(logits_BK.device)
        return loss_per_image(logits_BK + self.offset.to(logits_BK), values, self.task).mean()


def train(learner: Learner, targets: Targets, rows: np.ndarray, recipe: Recipe, seed: int) -> Iterator[int]:
    """Train on the images at ``rows``; yields the number of steps done at every evaluation point.

    Batches are cut from one endless sequence of seeded permutations, so every image is seen equally often.

    Raises:
        TrainingError: the loss is not finite.
    """
    optimizer = torch.optim.AdamW(learner.groups())
    warmup_steps = max(1, round(recipe.warmup * recipe.max_steps))

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(1, recipe.max_steps - warmup_steps)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    batches = _batches(rows, min(recipe.batch_size, len(rows)), seed)
    for step in range(recipe.max_steps):
        batch = next(batches)
        learner.module.train()
        optimizer.zero_grad(set_to_none=True)
        # The loss is a mean over images, so the gradients of parts add up to that of the batch.
        for start in range(0, len(batch), learner.at_once):
            part = batch[start : start + learner.at_once]
            loss = targets.loss(learner.logits(part, step), part) * (len(part) / len(batch))
            if not torch.isfinite(loss):
                raise TrainingError(
                    f"fine-tuning: the loss is {loss.item()} at step {step}; try a smaller learning rate"
                )
            loss.backward()
        torch.nn.utils.clip_grad_norm_(learner.module.parameters(), recipe.clip_norm)
        optimizer.step()
        schedule.step()
        if (step + 1) % recipe.evaluate_every == 0 or step + 1 == recipe.max_steps:
            yield step + 1


def fit_steps(learner: Learner, targets: Targets, rows: np.ndarray, recipe: Recipe, seed: int, steps: int) -> None:
    """Train up to ``steps`` steps, one of the evaluation points of :func:`train`."""
    for done in train(learner, targets, rows, recipe, seed):
        if done >= steps:
            break
    learner.module.eval()


def choose_steps(
    build: Callable[[], Learner],
    targets: Targets,
    folds: Sequence[tuple[np.ndarray, np.ndarray]],
    recipe: Recipe,
    seed: int,
) -> tuple[int, dict[int, float]]:
    """The number of steps with the least held-out loss, and that loss at every step looked at.

    Training stops early when the loss, averaged over the folds, has not improved for ``patience`` looks.

    Args:
        build: a new learner with the same initial weights every time.
        targets: of all given images.
        folds: pairs of training and held-out positions; all are trained side by side.
        recipe: the schedule.
        seed: fixes the batches.
    """
    learners = [build() for _ in folds]
    runs = [train(learner, targets, fold[0], recipe, seed) for learner, fold in zip(learners, folds, strict=True)]
    curve: dict[int, float] = {}
    best = 0
    for done in zip(*runs, strict=True):
        pairs = zip(learners, folds, strict=True)
        losses = [held_out_loss(learner, targets, held_out, recipe) for learner, (_, held_out) in pairs]
        curve[done[0]] = float(np.mean(losses))
        best = min(curve, key=lambda step: (curve[step], step))
        if done[0] - best >= recipe.patience * recipe.evaluate_every:
            break
    return best, curve


def held_out_loss(learner: Learner, targets: Targets, rows: np.ndarray, recipe: Recipe) -> float:
    """Log loss of the images at ``rows``, without augmentation."""
    learner.module.eval()
    total = 0.0
    with torch.no_grad():
        for start in range(0, len(rows), 8 * recipe.batch_size):
            part = rows[start : start + 8 * recipe.batch_size]
            total += targets.log_loss(learner.logits(part, None), part).item() * len(part)
    return total / len(rows)


def _batches(rows: np.ndarray, batch_size: int, seed: int) -> Iterator[np.ndarray]:
    generator = np.random.default_rng(seed)
    queue = np.empty(0, dtype=np.int64)
    while True:
        while len(queue) < batch_size:
            queue = np.concatenate([queue, generator.permutation(rows)])
        yield queue[:batch_size]
        queue = queue[batch_size:]
