"""Contrast."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from pretrain.views.transforms.base import Change, Draws, SometimesConfig, transform
from pretrain.views.values import column, image_means


@transform("contrast")
class Contrast(Change):
    """Differences to the mean of the image, all channels together, grow or shrink."""

    class Config(SometimesConfig):
        """Parameters.

        Attributes:
            probability: of changing an image.
            strength: the factor is drawn from ``1 - strength`` to ``1 + strength``.
        """

        strength: Annotated[float, Field(ge=0, lt=1)] = 0.4

        def acts_on(self, shape: tuple[int, ...]) -> bool:
            """Whether factors differ from 1."""
            return self.probability > 0 and self.strength > 0

    config: Config
    order = 30
    draws = 2
    on = True

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        """``factor * x + (1 - factor) * mean``."""
        factor_B = 1 + (2 * draws.u_BK[:, 1] - 1) * self.config.strength
        factor_B = torch.where(draws.u_BK[:, 0] < self.config.probability, factor_B, 1.0)
        offset_B = (1 - factor_B) * image_means(images)
        return images.mul_(column(factor_B, images)).add_(column(offset_B, images))
