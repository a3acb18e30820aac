"""Cases are drawn in proportion to their gradients, and weighted so that the expected step stays what it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from pydantic import Field

from data_shards.support.documents import Document
from data_shards.support.errors import ConfigError, TrainingError
from finetune.steppers.base import backward, register_stepper
from finetune.steppers.epochs import ALL_LAYERS, EpochStepper
from pretrain.backbone.modes import evaluating


@register_stepper("importance")
class ImportanceStepper(EpochStepper):
    """Katharopoulos and Fleuret, Not all samples are created equal, ICML 2018, algorithm 1.

    Of ``B = presample * b`` cases, ``b`` are drawn with replacement with probabilities ``p_i ~ s_i``, where ``s_i`` is
    the norm of the gradient of the loss with respect to the logits, which bounds the norm of the whole gradient up to a
    constant (section 3.2). The loss of a drawn case weighs ``1 / (B p_i)``, so that the expected gradient is that of
    the mean loss of the ``B`` cases.

    It draws so once ``tau = sqrt(B sum_i p_i^2)``, which is how many times as large a batch of uniform draws has the
    same variance (section 3.3), was above ``threshold`` in a running mean; until then it takes plain steps, and looks
    at their batches alone. Scores are of the network without dropout.

    Raises:
        ConfigError: mixtures are asked for, which depend on who stands beside whom.
    """

    class Config(Document):
        """How many are looked at, and from when on."""

        presample: int = Field(3, ge=1, description="batches that are looked at for one that is learned from")
        threshold: float = Field(1.5, ge=1, description="gain in batch size from which on draws are not uniform")
        memory: float = Field(0.9, ge=0, lt=1, description="of the gain in earlier steps")

    @classmethod
    def check(cls, config: Any, batch_size: int, mixup: float) -> None:
        """Mixtures cannot be drawn by case."""
        del config, batch_size
        if mixup:
            raise ConfigError("stepper importance draws single cases, and a mixture is of two; leave mixup at 0")

    def begin(self) -> None:
        """Nothing is known of the gain."""
        self.check(self.config, self.drawing.batch_size, self.drawing.mixup)
        super().begin()
        self._gain = 0.0
        self._weighted = 0

    def descend_along(self, batch: np.ndarray, number: int, share: float | None) -> float:
        """Add the gradient of the batch, or of cases drawn of it and of further ones; returns their mean loss.

        Raises:
            TrainingError: the loss is not finite.
        """
        draws = self._gain > self.config.threshold
        pool = batch
        if draws:
            pool = np.concatenate([batch, *(next(self._batches) for _ in range(self.config.presample - 1))])
        score_P = self._scores(pool, number)
        gain = gain_of(score_P)
        # From 0, as in the paper: a few steps pass before the running mean is what it is a mean of.
        self._gain = self.config.memory * self._gain + (1 - self.config.memory) * gain
        if not draws:
            loss = super().descend_along(batch, number, share)
            self.chose(batch, number, {ALL_LAYERS: np.ones(len(batch), dtype=bool)})
            return loss
        self._weighted += 1
        place_B, weight_B = drawn(score_P, len(batch), self.choices)
        loss = self._descend_weighted(pool[place_B], weight_B, number)
        self.chose(pool, number, {ALL_LAYERS: np.isin(np.arange(len(pool)), place_B)})
        return loss

    def _descend_weighted(self, cases: np.ndarray, weight_B: np.ndarray, number: int) -> float:
        at_once, total = self.learner.at_once, 0.0
        for start in range(0, len(cases), at_once):
            loss_B = self.losses(cases[start : start + at_once], number, None)
            weights = torch.from_numpy(weight_B[start : start + at_once]).to(loss_B)
            loss = (loss_B * weights).sum() / len(cases)
            total += backward(loss, number)
        return total

    def _scores(self, cases: np.ndarray, number: int) -> np.ndarray:
        """Norms of the gradients with respect to the logits, ``(P,)`` float64."""
        at_once, found = self.learner.at_once, []
        for start in range(0, len(cases), at_once):
            part = cases[start : start + at_once]
            with torch.no_grad(), evaluating(self.learner.module):
                logits_BK = self.learner.logits(part, number)
            with torch.enable_grad():
                logits_BK.requires_grad_()
                loss = self.objective.per_case(logits_BK, part).sum()
            (gradient_BK,) = torch.autograd.grad(loss, logits_BK)
            found.append(gradient_BK.double().norm(dim=1).cpu().numpy())
        score_P: np.ndarray = np.concatenate(found)
        if not np.isfinite(score_P).all():
            raise TrainingError(f"fine-tuning: a gradient is not finite at step {number}; try a smaller learning rate")
        return score_P

    @property
    def report(self) -> dict[str, Any]:
        """With how many steps had weights."""
        return {**super().report, "weighted_steps": self._weighted}


def probabilities(score_P: np.ndarray) -> np.ndarray:
    """Of drawing each case, ``(P,)``: in proportion to its score, equal where all scores are 0."""
    total = score_P.sum()
    return score_P / total if total > 0 else np.full(len(score_P), 1 / len(score_P))


def gain_of(score_P: np.ndarray) -> float:
    """``tau``, at least 1: see :class:`ImportanceStepper`."""
    return float(np.sqrt(len(score_P) * np.square(probabilities(score_P)).sum()))


def drawn(score_P: np.ndarray, count: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Places of ``count`` cases drawn with replacement, and the weight of each, both ``(B,)``."""
    probability_P = probabilities(score_P)
    place_B = generator.choice(len(score_P), count, p=probability_P)
    return place_B, 1 / (len(score_P) * probability_P[place_B])
