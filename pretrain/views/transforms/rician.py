"""Rician noise."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from pretrain.views.random import normals
from pretrain.views.transforms.base import Change, Draws, SometimesConfig, transform
from pretrain.views.values import column


@transform("rician")
class Rician(Change):
    """The noise of magnitude images of MRI (Gudbjartsson and Patz, Magnetic Resonance in Medicine 1995).

    Both parts of the complex signal have Gaussian noise; what is dark becomes brighter by it.
    """

    class Config(SometimesConfig):
        """Parameters.

        Attributes:
            probability: of changing an image.
            strength: the standard deviation of either part is evenly drawn from 0 to it, as a fraction of the full
                range.
        """

        probability: Annotated[float, Field(ge=0, le=1)] = 0.5
        strength: Annotated[float, Field(ge=0, le=1)] = 0.05

        def acts_on(self, shape: tuple[int, ...]) -> bool:
            """Whether there is any."""
            return self.probability > 0 and self.strength > 0

    config: Config
    order = 100
    draws = 2

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        """``sqrt((x + strength * n) ** 2 + (strength * m) ** 2)``; magnitudes ``x`` are clamped from below at 0."""
        strength_B = draws.u_BK[:, 1] * self.config.strength
        strength_B = torch.where(draws.u_BK[:, 0] < self.config.probability, strength_B, 0.0)
        count = math.prod(images.shape[1:])
        noise = normals(draws.keys_B, 2 * count).view(len(images), 2, *images.shape[1:])
        real, imaginary = noise.mul_(column(strength_B, noise)).unbind(1)
        return real.add_(images.clamp_(min=0)).square_().add_(imaginary.square_()).sqrt_()
