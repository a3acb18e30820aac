"""Thick slices: lower resolution along one axis."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from pretrain.views.transforms.base import Change, Draws, SometimesConfig, transform
from pretrain.views.values import column, where_chosen


def thick_slices(images: Tensor, thickness_B: Tensor, axis: int) -> Tensor:
    """What is left of images after they were taken in thicker slices, and interpolated back.

    A slice is the average over its thickness, which need not be a whole number of pixels; slices lie edge to edge from
    the beginning of the axis. Between their centres it is linear, outside the outermost centres constant. The last
    slice may reach beyond the image, which goes on as it ends.

    Args:
        images: ``B,C,...``.
        thickness_B: in pixels, from 1 up.
        axis: across which slices lie.
    """
    length, behind = images.shape[axis], [1] * (images.ndim - axis - 1)
    ahead = [len(images), *[1] * (axis - 1)]
    # Averages are differences of sums, of what is left without the first pixel, so that they are small.
    first = images.narrow(axis, 0, 1)
    sums = torch.cat([torch.zeros_like(first), (images - first).cumsum(dim=axis)], dim=axis)
    last = images.narrow(axis, length - 1, 1) - first
    at_L = torch.arange(length, device=images.device) + 0.5
    place_BL = at_L / thickness_B[:, None] - 0.5
    count_B1 = (length / thickness_B).ceil()[:, None]
    before_BL = place_BL.floor()

    def until(edge_BL: Tensor) -> Tensor:
        """The integral from the beginning of the axis."""
        inside = edge_BL.clamp(max=length)
        whole = inside.floor().clamp(max=length - 1)
        shape = [*ahead, length, *behind]
        index = whole.long().view(shape).expand_as(images)
        rest = (inside - whole).to(images.dtype).view(shape)
        beyond = (edge_BL - inside).to(images.dtype).view(shape)
        low, high = sums.gather(axis, index), sums.gather(axis, index + 1)
        return low + rest * (high - low) + beyond * last

    def average(number_BL: Tensor) -> Tensor:
        number_BL = number_BL.clamp(min=0).minimum(count_B1 - 1)
        edges = (until((number_BL + step) * thickness_B[:, None]) for step in (0, 1))
        begin, end = edges
        return first + (end - begin) / column(thickness_B, images)

    share = (place_BL - before_BL).to(images.dtype).view(*ahead, length, *behind)
    return average(before_BL) * (1 - share) + average(before_BL + 1) * share


@transform("anisotropy")
class Anisotropy(Change):
    """Lower the resolution along one axis, drawn for each image, as that of scans in thick slices is.

    As RandomAnisotropy of TorchIO (Perez-Garcia et al., 2021), but slices are averages, as a scanner makes them, not
    picked lines. It follows the resampling, along the axes of the view: what it takes away is not to be brought back by
    interpolation, so it is no part of it.
    """

    class Config(SometimesConfig):
        """Parameters.

        Attributes:
            probability: of lowering it.
            factor: the greatest thickness in pixels, which is drawn log-uniformly from 1 to it.
            axis: ``any``, or ``depth`` for volumes alone.
        """

        probability: Annotated[float, Field(ge=0, le=1)] = 0.25
        factor: Annotated[float, Field(ge=1, le=16)] = 4.0
        axis: Literal["any", "depth"] = "any"

        def acts_on(self, shape: tuple[int, ...]) -> bool:
            """Whether there is such an axis, and slices are thicker."""
            return self.probability > 0 and self.factor > 1 and (self.axis == "any" or len(shape) == 4)

    config: Config
    order = 5
    draws = 3

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        """Axis by axis, each image along one of them at most."""
        u_BK, axes = draws.u_BK, images.ndim - 2
        chosen_B = u_BK[:, 0] < self.config.probability
        thickness_B = (u_BK[:, 1] * math.log(self.config.factor)).exp()
        axis_B = torch.zeros_like(chosen_B, dtype=torch.int64)
        if self.config.axis == "any":
            axis_B = (u_BK[:, 2] * axes).floor().long()
        for axis in range(axes if self.config.axis == "any" else 1):
            images = where_chosen(
                images,
                chosen_B & (axis_B == axis),
                lambda part, thick_B, along=2 + axis: thick_slices(part, thick_B, along),
                thickness_B,
            )
        return images
