"""Ordinary minibatch steps."""

from __future__ import annotations

import numpy as np
import torch

from finetune.steppers.base import Stepper, backward, cut, even_draws, permutations, register_stepper


@register_stepper("plain")
class PlainStepper(Stepper):
    """A gradient of the mean loss over each batch, its norm bounded.

    Batches are cut from one endless sequence of seeded permutations, so every case is seen equally often; or every
    class is, see :func:`~finetune.steppers.base.even_draws`.
    """

    def begin(self) -> None:
        """Batches and shares are drawn from the seed."""
        epochs = permutations(self.rows, self.drawing.seed)
        if self.drawing.evenly:
            epochs = even_draws(self.rows, self.objective.target.strata(self.objective.labels), self.drawing.seed)
        self._batches = cut(epochs, self.next_size)
        self._shares = np.random.default_rng([self.drawing.seed, 1])

    def batch_size(self, epoch: int) -> int:
        """The same in every epoch."""
        return min(self.drawing.batch_size, len(self.rows))

    def next_size(self) -> int:
        """Cases of the next batch."""
        return self.batch_size(0)

    def step(self, number: int) -> float:
        """One step. The loss is a mean over cases, so the gradients of parts add up to that of the batch."""
        batch = next(self._batches)
        self.optimizer.zero_grad(set_to_none=True)
        total = self.gradient(batch, number) + self.further(number)
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, self.drawing.clip_norm)
        self.optimizer.step()
        return total

    def gradient(self, batch: np.ndarray, number: int) -> float:
        """Add the gradient of a batch; returns its loss.

        Raises:
            TrainingError: it is not finite.
        """
        mixup = self.drawing.mixup
        share = float(self._shares.beta(mixup, mixup)) if mixup else None
        return self.descend_along(batch, number, share)

    def descend_along(self, batch: np.ndarray, number: int, share: float | None) -> float:
        """Add the gradient of the mean loss of a batch, mixed in this ``share`` where one is given; returns the loss.

        Raises:
            TrainingError: it is not finite.
        """
        total = 0.0
        for start in range(0, len(batch), self.learner.at_once):
            part = batch[start : start + self.learner.at_once]
            loss = self.losses(part, number, share).mean() * (len(part) / len(batch))
            total += backward(loss, number)
        return total

    def further(self, number: int) -> float:
        """Add the gradient of what is learned beside the batch, and return its loss; here nothing is."""
        del number
        return 0.0

    def losses(self, rows: np.ndarray, number: int, share: float | None) -> torch.Tensor:
        """The loss of each case at ``rows``, or of the mixture around it, ``(B,)``."""
        if share is None:
            return self.learner.losses(self.objective, rows, number)
        logits, others = self.learner.mixed(rows, number, share)
        first, second = self.objective.per_case(logits, rows), self.objective.per_case(logits, others)
        return share * first + (1 - share) * second
