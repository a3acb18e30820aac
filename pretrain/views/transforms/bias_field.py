"""The bias field of MRI."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from pretrain.views.random import uniforms
from pretrain.views.splines import control_points, smooth_field
from pretrain.views.transforms.base import Change, Draws, SometimesConfig, transform
from pretrain.views.values import column


@transform("bias_field")
class BiasField(Change):
    """Intensities times a smooth field, as an uneven coil sensitivity gives it.

    The field is positive and its logarithm a cubic B-spline, as N3 and N4 model it (Sled et al., IEEE TMI 1998;
    Tustison et al., IEEE TMI 2010), between random control points. All channels have the same.
    """

    class Config(SometimesConfig):
        """Parameters.

        Attributes:
            probability: of changing an image.
            strength: the largest logarithm of the field either way.
            intervals: into which each axis is cut by the control points; more make it less smooth.
        """

        probability: Annotated[float, Field(ge=0, le=1)] = 0.5
        strength: Annotated[float, Field(ge=0, le=2)] = 0.3
        intervals: Annotated[int, Field(ge=1, le=8)] = 2

        def acts_on(self, shape: tuple[int, ...]) -> bool:
            """Whether the field differs from 1."""
            return self.probability > 0 and self.strength > 0

    config: Config
    order = 20
    draws = 1

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        """``x * exp(spline)``."""
        intervals, axes = self.config.intervals, images.ndim - 2
        side = control_points(intervals)
        points = 2 * uniforms(draws.keys_B, side**axes).view(-1, 1, *[side] * axes) - 1
        most_B = torch.where(draws.u_BK[:, 0] < self.config.probability, self.config.strength, 0.0)
        return images.mul_(smooth_field(points * column(most_B, points), tuple(images.shape[2:]), intervals).exp_())
