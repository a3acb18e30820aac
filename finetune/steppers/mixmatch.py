"""MixMatch: guessed and sharpened labels, and mixtures of labelled and unlabelled cases."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from data_shards.support.documents import Document
from data_shards.support.errors import ConfigError
from finetune.steppers.base import register_stepper
from finetune.steppers.unlabelled import UnlabelledStepper, linear_ramp, view


@register_stepper("mixmatch")
class MixMatchStepper(UnlabelledStepper):
    """Berthelot et al., MixMatch, NeurIPS 2019, algorithm 1 and equations 2 to 5.

    Labels of unlabelled cases are the mean over ``views`` augmentations, sharpened. Labelled and unlabelled cases are
    shuffled together and each is mixed with the next, mostly itself. Mixtures around a labelled case have the
    cross-entropy, those around an unlabelled one the squared distance. One view of each unlabelled case is mixed, where
    the paper mixes all; one share is drawn per step. On cached features these are mixed, and views differ by dropout.

    Raises:
        ConfigError: ``mixup`` is asked for besides.
    """

    mixes: ClassVar[bool] = True

    class Config(Document):
        """Guessing and mixing."""

        views: int = Field(2, ge=1, description="augmentations over which a guess is averaged")
        temperature: float = Field(0.5, gt=0, le=1, description="of sharpening")
        alpha: float = Field(0.75, gt=0, description="of the Beta distribution of shares")
        weight: float = Field(10.0, ge=0, description="of the loss of unlabelled cases, once it has risen")
        ramp_steps: int = Field(40, ge=0, description="steps in which the weight rises")

    def begin(self) -> None:
        """Draws of unlabelled cases and of shares."""
        super().begin()
        if self.drawing.mixup:
            raise ConfigError("stepper mixmatch mixes by itself; leave mixup at 0 and set its option alpha")
        self._drawn = self.drawn_of(self.unlabelled_rows)
        self._random = np.random.default_rng([self.drawing.seed, 2])

    def gradient(self, batch: np.ndarray, number: int) -> float:
        """Add the gradient of the mixtures of a labelled batch and an unlabelled one."""
        if not self.config.weight:
            return super().gradient(batch, number)
        unlabelled = next(self._drawn)
        views = [self.guessed(unlabelled, view(number, each)) for each in range(self.config.views)]
        guess_UC = sharpened(torch.stack(views).mean(dim=0), self.config.temperature)
        guesses = dict(zip(unlabelled.tolist(), guess_UC, strict=True))
        share = major_share(float(self._random.beta(self.config.alpha, self.config.alpha)))
        weight = self.config.weight * linear_ramp(number, self.config.ramp_steps)
        first = self.unlabelled_rows[0]
        total = 0.0
        for part in self.parts(self._random.permutation(np.concatenate([batch, unlabelled]))):
            logits_BK, others = self.learner.mixed(part, number, share)
            log_BC = self.log_probabilities(logits_BK)
            is_labelled = torch.from_numpy(part < first).to(logits_BK.device)
            loss_B = share * self._entropy(logits_BK, log_BC, part, guesses)
            loss_B = loss_B + (1 - share) * self._entropy(logits_BK, log_BC, others, guesses)
            mixed_BC = share * self._label(part, guesses, log_BC) + (1 - share) * self._label(others, guesses, log_BC)
            distance_B = (log_BC.exp() - mixed_BC).square().mean(dim=1)
            labelled = loss_B[is_labelled].sum() / len(batch)
            total += self.descend(labelled + weight * distance_B[~is_labelled].sum() / len(unlabelled), number)
        return total

    def _entropy(self, logits_BK: Tensor, log_BC: Tensor, rows: np.ndarray, guesses: dict[int, Tensor]) -> Tensor:
        """The loss of each mixture by the labels of ``rows``, given or guessed, ``(B,)``."""
        given = rows < self.unlabelled_rows[0]
        loss_B = -(self._label(rows, guesses, log_BC) * log_BC).sum(dim=1)
        if given.any():
            at = torch.from_numpy(np.flatnonzero(given)).to(logits_BK.device)
            loss_B = loss_B.index_put((at,), self.objective.per_case(logits_BK[at], rows[given]))
        return loss_B

    def _label(self, rows: np.ndarray, guesses: dict[int, Tensor], like: Tensor) -> Tensor:
        """Probabilities of each class: 0 and 1 where the label is given, ``(B, C)``."""
        found = torch.zeros_like(like)
        for place, row in enumerate(rows.tolist()):
            if row in guesses:
                found[place] = guesses[row]
            else:
                found[place, int(self.objective.labels[row, 0])] = 1
        return found


def sharpened(probabilities_BC: Tensor, temperature: float) -> Tensor:
    """``p^(1/T)``, which adds up to 1 again (equation 7)."""
    powers = probabilities_BC ** (1 / temperature)
    return powers / powers.sum(dim=1, keepdim=True)


def major_share(share: float) -> float:
    """The larger of a share and the rest (equation 9): a mixture is nearer to the case whose loss it has."""
    return max(share, 1 - share)
