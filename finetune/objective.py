"""What a fit on given labels minimises, and the probabilities it is held to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from data_shards.support.errors import ConfigError
from finetune.targets import Target
from finetune.targets.base import ClassTarget

FOCAL_GAMMA = 2.0

Loss = Literal["nll", "focal"]


@dataclass(frozen=True)
class Objective:
    """Labels with what weighs them.

    Attributes:
        target: what they are labels of.
        labels: ``(N, L)``.
        values: as the target's loss takes them.
        weights: of the cases, ``(N,)`` of mean 1.
        offset: brings log scores back to the given prevalence, ``(C,)``; None where nothing moved it.
        loss_name: ``nll`` or ``focal``.
        unlabelled: so many cases without labels follow the given ones, for steppers that learn from them.
    """

    target: Target
    labels: np.ndarray
    values: Tensor
    weights: Tensor
    offset: Tensor | None
    loss_name: Loss = "nll"
    unlabelled: int = 0

    @property
    def unlabelled_rows(self) -> np.ndarray:
        """The rows of the cases without labels, which come after all with labels."""
        return len(self.labels) + np.arange(self.unlabelled)

    @classmethod
    def of(
        cls,
        target: Target,
        labels: np.ndarray,
        *,
        balanced: bool,
        drawn_evenly: bool,
        loss: Loss,
        unlabelled: int = 0,
    ) -> Objective:
        """The objective of labels.

        Args:
            target: what they are labels of.
            labels: ``(N, L)``.
            balanced: weight classes inversely to their frequency.
            drawn_evenly: batches hold all classes equally often, by the sampler; weights would do it twice.
            loss: the negative log likelihood, or the focal loss (Lin et al., ICCV 2017, eq. 4) that lets go of cases
                that are told already. The latter is of classes only.
            unlabelled: how many cases without labels follow.

        Raises:
            ConfigError: the loss, or how batches are drawn, does not fit the target.
        """
        if drawn_evenly and not isinstance(target, ClassTarget):
            raise ConfigError(f"the balanced sampler is for one class per case, not for a {target.task.name} target")
        if loss == "focal" and not isinstance(target, ClassTarget):
            raise ConfigError(f"the focal loss is for one class per case, not for a {target.task.name} target")
        weights = target.weights(labels) if balanced and not drawn_evenly else np.ones(len(labels))
        offset = target.offset(labels) if balanced or drawn_evenly else None
        return cls(
            target,
            labels,
            target.values(labels),
            torch.from_numpy(weights).float(),
            None if offset is None else torch.from_numpy(offset),
            loss,
            unlabelled,
        )

    def per_case(self, logits_BK: Tensor, rows: np.ndarray) -> Tensor:
        """The weighted loss of each case at ``rows``, ``(B,)``."""
        index = torch.from_numpy(rows)
        values, weights = self.values[index].to(logits_BK.device), self.weights[index].to(logits_BK.device)
        loss_B = self.target.loss(logits_BK, values)
        if self.loss_name == "focal":
            loss_B = (-torch.expm1(-loss_B)) ** FOCAL_GAMMA * loss_B
        return weights * loss_B

    def log_scores(self, logits_BK: Tensor) -> Tensor:
        """What is given out for logits, float64 on the CPU."""
        return self.target.log_scores(logits_BK.detach().double().cpu(), self.offset)

    def log_loss(self, log_scores_BC: Tensor, rows: np.ndarray) -> float:
        """Mean negative log likelihood of the cases at ``rows`` by what is given out."""
        return float(self.target.log_loss(log_scores_BC, self.labels[rows]).mean())
