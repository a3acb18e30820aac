"""Adversarial alignment: a small network tells the sites apart, and the features learn to leave it nothing to tell."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from finetune.alignment.base import Alignment, AlignmentConfig, register_alignment


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return -ctx.scale * grads[0], None


def reversed_gradient(values: Tensor, scale: float) -> Tensor:
    """``values`` themselves, whose gradient comes back times ``-scale`` (Ganin et al., JMLR 2016, eq. 16 and 17)."""
    reversed_values: Tensor = _Reversal.apply(values, scale)
    return reversed_values


def ramp(progress: float) -> float:
    """``2 / (1 + exp(-10 p)) - 1``, from 0 to 1: at first the tellings are noise (Ganin et al., section 5.2.2)."""
    return 2 / (1 + math.exp(-10 * progress)) - 1


@register_alignment("adversarial")
class Adversarial(Alignment):
    """Domain-adversarial training (Ganin et al., Domain-adversarial training of neural networks, JMLR 17, 2016).

    A classifier of one hidden layer learns, at the rate of the head, from which site features are; the network learns
    along its reversed gradient, whose weight rises over the training. Both sites count alike in its loss, however many
    of their cases a batch has. The weight is that of the reversed gradient alone: the classifier learns at full rate.

    Args:
        dim: numbers per case.
        config: the options.
    """

    class Config(AlignmentConfig):
        """Weight, and how large the classifier of sites is."""

        hidden: int = Field(64, ge=1, description="width of the classifier of sites")

    def __init__(self, dim: int, config: Any) -> None:
        super().__init__(dim, config)
        self.tells = nn.Sequential(nn.Linear(dim, config.hidden), nn.ReLU(), nn.Linear(config.hidden, 1))

    def forward(self, source_BD: Tensor, target_MD: Tensor, progress: float) -> Tensor:
        """Cross-entropy of the classifier of sites."""
        scale = self.config.weight * ramp(progress)
        source_B, target_M = (
            self.tells(reversed_gradient(features, scale))[:, 0] for features in (source_BD, target_MD)
        )
        # log(1 + exp(z)) of the source, where z shall be low, and log(1 + exp(-z)) of the target.
        return (F.softplus(source_B).mean() + F.softplus(-target_M).mean()) / 2
