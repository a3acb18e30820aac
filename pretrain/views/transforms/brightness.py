"""Brightness."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from pretrain.views.transforms.base import Change, Draws, SometimesConfig, transform
from pretrain.views.values import column


@transform("brightness")
class Brightness(Change):
    """All intensities are raised or lowered by the same."""

    class Config(SometimesConfig):
        """Parameters.

        Attributes:
            probability: of changing an image.
            strength: the largest shift either way, as a fraction of the full range.
        """

        strength: Annotated[float, Field(ge=0, le=1)] = 0.2

        def acts_on(self, shape: tuple[int, ...]) -> bool:
            """Whether anything is added."""
            return self.probability > 0 and self.strength > 0

    config: Config
    order = 40
    draws = 2
    on = True

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        """``x + shift``."""
        shift_B = (2 * draws.u_BK[:, 1] - 1) * self.config.strength
        shift_B = torch.where(draws.u_BK[:, 0] < self.config.probability, shift_B, 0.0)
        return images.add_(column(shift_B, images))
