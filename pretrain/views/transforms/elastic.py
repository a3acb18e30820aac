"""Elastic distortion."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from pretrain.views.random import uniforms
from pretrain.views.splines import control_points, smooth_field
from pretrain.views.transforms.base import Draws, Frame, SometimesConfig, Warp, transform
from pretrain.views.values import column


@transform("elastic")
class Elastic(Warp):
    """Free-form deformation by cubic B-splines between random control points (Rueckert et al., IEEE TMI 1999).

    Control points are moved evenly at random by at most ``strength`` times their distance. Below .40 of it in 3D and
    .48 in 2D nothing is folded (Choi and Lee, Graphical Models 2000), which the limit of ``strength`` keeps.
    """

    class Config(SometimesConfig):
        """Parameters.

        Attributes:
            probability: of distorting an image.
            strength: largest displacement, as a fraction of the distance between control points.
            intervals: into which each axis of the view is cut by them.
        """

        probability: Annotated[float, Field(ge=0, le=1)] = 0.5
        strength: Annotated[float, Field(ge=0, le=0.4)] = 0.2
        intervals: Annotated[int, Field(ge=1, le=16)] = 4

        def acts_on(self, shape: tuple[int, ...]) -> bool:
            """Whether it moves anything."""
            return self.probability > 0 and self.strength > 0

    config: Config
    order = 10
    draws = 1

    def displacement(self, draws: Draws, frame: Frame) -> Tensor:
        """Of the coordinates of the view, in which control points are ``2 / intervals`` apart."""
        intervals, axes = self.config.intervals, frame.axes
        side = control_points(intervals)
        points = 2 * uniforms(draws.keys_B, axes * side**axes).view(-1, axes, *[side] * axes) - 1
        most_B = torch.where(draws.u_BK[:, 0] < self.config.probability, self.config.strength * 2 / intervals, 0.0)
        return smooth_field(points * column(most_B, points), tuple(reversed(frame.size)), intervals)
