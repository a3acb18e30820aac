"""A part of the image, shown at the size of the whole."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from pretrain.views.maps import diagonal
from pretrain.views.transforms.base import Draws, Frame, Move, TransformConfig, transform

Share = Annotated[float, Field(gt=0, le=1)]


def _ordered(areas: tuple[float, float]) -> tuple[float, float]:
    if areas[0] > areas[1]:
        raise ValueError(f"{areas[0]} is above {areas[1]}; the smallest area comes first")
    return areas


Areas = Annotated[tuple[Share, Share], AfterValidator(_ordered)]
"""The smallest and the largest area of a crop, as a fraction of the image."""


@transform("crop")
class Crop(Move):
    """The random resized crop of Szegedy et al. (CVPR 2015), as torchvision's RandomResizedCrop.

    An area and an aspect ratio are drawn; the place is uniform among those where the crop lies inside the image. The
    depth of a volume is cropped to the same share of its length as the sides of its slices are, times an aspect ratio
    of its own.
    """

    class Config(TransformConfig):
        """Parameters.

        Attributes:
            scale: smallest and largest area, as a fraction of the image; of a volume within its slices.
            aspect: the aspect ratio is drawn log-uniformly from ``1 / aspect`` to ``aspect``.
        """

        scale: Areas = (0.4, 1.0)
        aspect: Annotated[float, Field(ge=1, le=4)] = 1.25

        def acts_on(self, shape: tuple[int, ...]) -> bool:
            """Whether it may be anything but the whole image."""
            return self.scale[0] < 1 or self.aspect > 1

    config: Config
    order = 20
    draws = 6
    on = True

    def maps(self, draws: Draws, frame: Frame) -> Tensor:
        """Half the sides of the crops on the diagonal, and their centres."""
        u_BK, (least, most) = draws.u_BK, self.config.scale
        area_B = least + (most - least) * u_BK[:, 0]
        log_aspect_B, log_depth_B = ((2 * u_BK[:, draw] - 1) * math.log(self.config.aspect) for draw in (1, 4))
        halves = [(area_B * log_aspect_B.exp()).sqrt(), (area_B * (-log_aspect_B).exp()).sqrt()]
        places = [u_BK[:, 2], u_BK[:, 3]]
        if frame.axes == 3:
            halves.append(area_B.sqrt() * log_depth_B.exp())
            places.append(u_BK[:, 5])
        half_BA = torch.stack(halves, dim=1).clamp(max=1)
        return diagonal(half_BA, (2 * torch.stack(places, dim=1) - 1) * (1 - half_BA))
