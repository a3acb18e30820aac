"""The image moved along its axes."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from pretrain.views.maps import diagonal
from pretrain.views.transforms.base import Draws, Frame, Move, TransformConfig, transform


@transform("shift")
class Shift(Move):
    """A shift along every axis, evenly drawn, on top of the place of the crop; it may show what lies outside."""

    class Config(TransformConfig):
        """Parameters.

        Attributes:
            fraction: the largest either way, as a fraction of the side of the image.
        """

        fraction: Annotated[float, Field(ge=0, le=0.5)] = 0.1

        def acts_on(self, shape: tuple[int, ...]) -> bool:
            """Whether it moves at all."""
            return self.fraction > 0

    config: Config
    order = 10
    draws = 3

    def maps(self, draws: Draws, frame: Frame) -> Tensor:
        """Offsets alone; a side is 2 long."""
        offset_BA = (2 * draws.u_BK[:, : frame.axes] - 1) * (2 * self.config.fraction)
        return diagonal(torch.ones_like(offset_BA), offset_BA)
