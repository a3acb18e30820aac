"""Rotation within the slices, and tilt of volumes."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field
from torch import Tensor

from pretrain.views.maps import composed, diagonal, turned
from pretrain.views.transforms.base import Draws, Frame, Move, TransformConfig, transform

Degrees = Annotated[float, Field(ge=0, le=180)]


@transform("rotation")
class Rotation(Move):
    """A rotation about the centre, evenly drawn; a volume is also tilted about both axes of its slices, before that.

    Rigid in mm where the spacing of the image is known, otherwise in pixels.
    """

    class Config(TransformConfig):
        """Parameters.

        Attributes:
            degrees: the largest either way, of a volume within its slices.
            tilt_degrees: of volumes: the largest tilt either way, about each of the two axes of its slices.
        """

        degrees: Degrees = 10.0
        tilt_degrees: Degrees = 10.0

        def acts_on(self, shape: tuple[int, ...]) -> bool:
            """Whether it turns at all; planes are not tilted."""
            return self.degrees > 0 or (self.tilt_degrees > 0 and len(shape) == 4)

    config: Config
    order = 40
    draws = 3
    on = True

    def maps(self, draws: Draws, frame: Frame) -> Tensor:
        """To lengths, turned, and back to coordinates, in which the image is 2 long along every axis."""
        signed_BK = 2 * draws.u_BK - 1
        within, tilt = (math.radians(degrees) for degrees in (self.config.degrees, self.config.tilt_degrees))
        turns = [turned(frame.axes, 0, 1, signed_BK[:, 0] * within)]
        if frame.axes == 3:
            turns += [turned(3, first, 2, signed_BK[:, draw] * tilt) for draw, first in ((1, 1), (2, 0))]
        return composed([diagonal(1 / frame.extent_BA), *turns, diagonal(frame.extent_BA)])
