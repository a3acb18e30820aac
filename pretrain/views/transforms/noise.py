"""Gaussian noise."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from pretrain.views.random import normals
from pretrain.views.transforms.base import Change, Draws, SometimesConfig, transform
from pretrain.views.values import column


@transform("noise")
class Noise(Change):
    """Gaussian noise, every value by itself."""

    class Config(SometimesConfig):
        """Parameters.

        Attributes:
            probability: of changing an image.
            strength: the standard deviation is evenly drawn from 0 to it, as a fraction of the full range.
        """

        probability: Annotated[float, Field(ge=0, le=1)] = 1.0
        strength: Annotated[float, Field(ge=0, le=1)] = 0.05

        def acts_on(self, shape: tuple[int, ...]) -> bool:
            """Whether there is any."""
            return self.probability > 0 and self.strength > 0

    config: Config
    order = 90
    draws = 2
    on = True

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        """``x + strength * n``."""
        strength_B = draws.u_BK[:, 1] * self.config.strength
        strength_B = torch.where(draws.u_BK[:, 0] < self.config.probability, strength_B, 0.0)
        noise = normals(draws.keys_B, math.prod(images.shape[1:])).view_as(images)
        return images.addcmul_(noise, column(strength_B, images))
