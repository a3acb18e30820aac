"""Curriculum labelling: the most confident share of unlabelled cases gets labels, more of them in each round."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from data_shards.support.documents import Document
from finetune.steppers.base import register_stepper
from finetune.steppers.unlabelled import UnlabelledStepper


@register_stepper("pseudo_labels")
class PseudoLabelsStepper(UnlabelledStepper):
    """Cascante-Bonilla et al., Curriculum labeling, AAAI 2021, algorithm 1.

    Round 0 sees labelled cases alone. In round ``r`` the share ``growth * r`` of the unlabelled cases about which the
    model is most sure has the classes it says. They are guessed anew in each round, so that errors can be taken back.
    In the paper the weights start again in each round; here they go on, since a fit has one schedule.
    """

    class Config(Document):
        """How fast the share grows."""

        growth: float = Field(0.2, gt=0, le=1, description="by which the share of cases with guessed labels grows")
        round_steps: int = Field(15, ge=1, description="steps of a round")
        weight: float = Field(1.0, ge=0, description="of the loss of guessed labels beside that of the given ones")

    def begin(self) -> None:
        """Nothing is guessed yet."""
        super().begin()
        self._taken = 0
        self._drawn: Iterator[np.ndarray] | None = None
        self._values: Tensor | None = None
        self._share = -1.0

    def further(self, number: int) -> float:
        """The loss of a batch with guessed labels."""
        share = share_of_round(number // self.config.round_steps, self.config.growth)
        if not self.config.weight or not share:
            return 0.0
        if number % self.config.round_steps == 0 or self._share != share:
            self._guess(share)
            self._share = share
        assert self._drawn is not None and self._values is not None
        batch = next(self._drawn)
        total = 0.0
        for part in self.parts(batch):
            logits_BK = self.learner.logits(part, number)
            values = self._values[torch.from_numpy(part - self.unlabelled_rows[0])].to(logits_BK.device)
            loss_B = self.objective.target.loss(logits_BK, values)
            total += self.descend(self.config.weight * loss_B.sum() / len(batch), number)
        return total

    def _guess(self, share: float) -> None:
        """Labels of the most confident cases by the model as it is now."""
        module = self.learner.module
        module.eval()
        said_MC = self.guessed(self.unlabelled_rows, None).cpu().numpy()
        module.train()
        chosen = most_confident(said_MC, share)
        self._values = self.objective.target.values(said_MC.argmax(axis=1)[:, None])
        self._drawn = self.drawn_of(self.unlabelled_rows[chosen])
        self._taken = len(chosen)

    @property
    def report(self) -> dict[str, Any]:
        """With how many had guessed labels at the end."""
        return {**super().report, "pseudo_labelled": self._taken}


def share_of_round(number: int, growth: float) -> float:
    """The share of unlabelled cases that have labels in a round, counted from 0."""
    return min(1.0, growth * number)


def most_confident(probabilities_MC: np.ndarray, share: float) -> np.ndarray:
    """Positions of the share with the highest largest probability, at least one; among equals the first."""
    count = max(1, round(share * len(probabilities_MC)))
    return np.sort(np.argsort(-probabilities_MC.max(axis=1), kind="stable")[:count])
