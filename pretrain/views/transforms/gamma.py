"""Gamma."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from pretrain.views.transforms.base import Change, Draws, SometimesConfig, transform
from pretrain.views.values import column


@transform("gamma")
class Gamma(Change):
    """Intensities, clamped to [0, 1], to a power: dark or bright ones are told apart better."""

    class Config(SometimesConfig):
        """Parameters.

        Attributes:
            probability: of changing an image.
            strength: the exponent is drawn log-uniformly from ``1 / (1 + strength)`` to ``1 + strength``.
        """

        strength: Annotated[float, Field(ge=0, le=4)] = 0.3

        def acts_on(self, shape: tuple[int, ...]) -> bool:
            """Whether exponents differ from 1."""
            return self.probability > 0 and self.strength > 0

    config: Config
    order = 60
    draws = 2
    on = True

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        """``x ** gamma``."""
        gamma_B = ((2 * draws.u_BK[:, 1] - 1) * math.log1p(self.config.strength)).exp()
        gamma_B = torch.where(draws.u_BK[:, 0] < self.config.probability, gamma_B, 1.0)
        # Not pow: where torch cuts a batch for its threads, the last numbers of a piece are rounded in another way.
        return images.clamp_(0, 1).log_().mul_(column(gamma_B, images)).exp_()
