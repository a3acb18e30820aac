"""What the steppers that learn from unlabelled cases share: their batches, guessed probabilities, ramps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from finetune.steppers.base import backward, cut, permutations
from finetune.steppers.plain import PlainStepper

_VIEWS_APART = 1 << 20
"""Between the step numbers of augmentations of one step: no fit has as many steps."""


class UnlabelledStepper(PlainStepper):
    """Plain steps on labelled cases, to which a loss on further cases adds its gradient.

    With ``weight`` 0 it is the plain stepper, draw by draw.
    """

    learns_unlabelled: ClassVar[bool] = True

    def begin(self) -> None:
        """Further cases are beside the batches."""
        super().begin()
        self.unlabelled_rows = self.objective.unlabelled_rows

    def drawn_of(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """Endless batches of further cases, as large as the labelled ones or all there are."""
        return cut(permutations(rows, self.drawing.seed + 1), min(self.drawing.batch_size, len(rows)))

    def parts(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """A batch in parts that memory has room for."""
        for start in range(0, len(rows), self.learner.at_once):
            yield rows[start : start + self.learner.at_once]

    def log_probabilities(self, logits_BK: Tensor) -> Tensor:
        """Of each class, ``(B, C)``, with gradient."""
        return self.objective.target.log_scores(logits_BK)

    def guessed(self, rows: np.ndarray, step: int | None) -> Tensor:
        """Probabilities ``(B, C)`` of cases, without gradient and in the mode the learner is in."""
        with torch.no_grad():
            found = [self.log_probabilities(self.learner.logits(part, step)).exp() for part in self.parts(rows)]
        return torch.cat(found)

    def descend(self, loss: Tensor, number: int) -> float:
        """Add the gradient of a loss; returns it.

        Raises:
            TrainingError: it is not finite.
        """
        return backward(loss, number, of="the loss on unlabelled cases", smaller="weight")

    @property
    def report(self) -> dict[str, Any]:
        """How many unlabelled cases there were."""
        return {"unlabelled": len(self.unlabelled_rows)}


def view(step: int, number: int) -> int:
    """A step number for augmentation ``number`` of a step; number 0 is that of the step itself."""
    return step + number * _VIEWS_APART


def sigmoid_ramp(step: int, steps: int) -> float:
    """``exp(-5 (1 - t)^2)`` with ``t`` from 0 to 1 in so many steps (Laine and Aila, ICLR 2017, section 2.1)."""
    t = min(1.0, step / steps) if steps else 1.0
    return math.exp(-5 * (1 - t) ** 2)


def linear_ramp(step: int, steps: int) -> float:
    """From 0 to 1 in so many steps."""
    return min(1.0, step / steps) if steps else 1.0
