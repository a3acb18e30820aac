"""The image magnified or made smaller about its centre, or that of the crop."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field
from torch import Tensor

from pretrain.views.maps import diagonal
from pretrain.views.transforms.base import Draws, Frame, Move, TransformConfig, transform


@transform("scale")
class Scale(Move):
    """One factor for all axes, drawn log-uniformly. Unlike a crop it may make the image smaller, and show outside."""

    class Config(TransformConfig):
        """Parameters.

        Attributes:
            factor: the largest, and its inverse the smallest.
        """

        factor: Annotated[float, Field(ge=1, le=4)] = 1.25

        def acts_on(self, shape: tuple[int, ...]) -> bool:
            """Whether sizes may change."""
            return self.factor > 1

    config: Config
    order = 30
    draws = 1

    def maps(self, draws: Draws, frame: Frame) -> Tensor:
        """The inverse of the factor on the diagonal: a view that shows less shows it larger."""
        inverse_B1 = ((1 - 2 * draws.u_BK) * math.log(self.config.factor)).exp()
        return diagonal(inverse_B1.expand(-1, frame.axes))
