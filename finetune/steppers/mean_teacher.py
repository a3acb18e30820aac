"""Mean teacher: the model shall say of a case what the mean of its past selves says of another view of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from data_shards.support.documents import Document
from finetune.steppers.base import register_stepper
from finetune.steppers.unlabelled import UnlabelledStepper, sigmoid_ramp, view


@register_stepper("mean_teacher")
class MeanTeacherStepper(UnlabelledStepper):
    """Tarvainen and Valpola, Mean teachers are better role models, NeurIPS 2017, section 2.

    The loss is the squared distance of the probabilities, on labelled and unlabelled cases; its weight rises. The
    teacher's weights are an exponential mean of the student's. The student is what the fit gives, so that the choice
    of steps and the snapshots are those of any other stepper. Views differ in augmentation and dropout; of cached
    features there is dropout alone.
    """

    class Config(Document):
        """Mean and ramp."""

        decay: float = Field(0.99, ge=0, lt=1, description="of the mean of the weights; less in the first steps")
        weight: float = Field(10.0, ge=0, description="of the distance from the teacher, once it has risen")
        ramp_steps: int = Field(40, ge=0, description="steps in which the weight rises")

    def begin(self) -> None:
        """The teacher is the student."""
        super().begin()
        self._student = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        self._teacher = [weight.detach().clone() for weight in self._student]
        self._drawn = self.drawn_of(np.concatenate([self.rows, self.unlabelled_rows]))
        self._taken = 0

    def further(self, number: int) -> float:
        """The distance from the teacher."""
        if not self.config.weight:
            return 0.0
        weight = self.config.weight * sigmoid_ramp(number, self.config.ramp_steps)
        batch = next(self._drawn)
        with holding(self._student, self._teacher):
            said_BC = self.guessed(batch, view(number, 1))
        total, start = 0.0, 0
        for part in self.parts(batch):
            own_BC = self.log_probabilities(self.learner.logits(part, number)).exp()
            distance_B = (own_BC - said_BC[start : start + len(part)]).square().mean(dim=1)
            total += self.descend(weight * distance_B.sum() / len(batch), number)
            start += len(part)
        return total

    def step(self, number: int) -> float:
        """One step, after which the teacher follows."""
        loss = super().step(number)
        self._taken += 1
        follow(self._teacher, self._student, min(1 - 1 / (self._taken + 1), self.config.decay))
        return loss


def follow(mean: Sequence[Tensor], new: Sequence[Tensor], decay: float) -> None:
    """``mean = decay mean + (1 - decay) new``, in place."""
    with torch.no_grad():
        for old, value in zip(mean, new, strict=True):
            old.lerp_(value, 1 - decay)


@contextmanager
def holding(weights: Sequence[Tensor], values: Sequence[Tensor]) -> Iterator[None]:
    """Within the block the weights have other values; afterwards their own, to the bit."""
    own = [weight.detach().clone() for weight in weights]
    try:
        with torch.no_grad():
            for weight, value in zip(weights, values, strict=True):
                weight.copy_(value)
        yield
    finally:
        with torch.no_grad():
            for weight, value in zip(weights, own, strict=True):
                weight.copy_(value)
