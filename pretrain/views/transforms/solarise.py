"""Solarisation."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from pretrain.views.transforms.base import Change, Draws, SometimesConfig, transform
from pretrain.views.values import column


@transform("solarise")
class Solarise(Change):
    """Intensities from a threshold on are inverted (BYOL, Grill et al., NeurIPS 2020, appendix B)."""

    class Config(SometimesConfig):
        """Parameters.

        Attributes:
            probability: of changing an image.
            threshold: from which on ``x`` becomes ``1 - x``.
        """

        probability: Annotated[float, Field(ge=0, le=1)] = 0.2
        threshold: Annotated[float, Field(ge=0, le=1)] = 0.5

        def acts_on(self, shape: tuple[int, ...]) -> bool:
            """Whether any image is changed."""
            return self.probability > 0

    config: Config
    order = 70
    draws = 1

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        """The threshold of images that are not chosen is out of reach."""
        images = images.clamp_(0, 1)
        threshold_B = torch.where(draws.u_BK[:, 0] < self.config.probability, self.config.threshold, 2.0)
        return torch.where(images >= column(threshold_B, images), 1 - images, images)
