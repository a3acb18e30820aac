"""Colour."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from pretrain.views.transforms.base import Change, Draws, SometimesConfig, transform
from pretrain.views.values import column


@transform("colour")
class Colour(Change):
    """A gain for each channel, and a turn of the hue. Images of one channel are left alone.

    The hue of images of three channels is turned about the axis of greys, which keeps the mean of the channels and
    their distance from it (Rodrigues' rotation); unlike that of HSV it has no corners.
    """

    class Config(SometimesConfig):
        """Parameters.

        Attributes:
            probability: of changing an image.
            strength: largest relative gain or loss of each channel.
            hue_degrees: largest turn of the hue either way, of images of three channels.
        """

        strength: Annotated[float, Field(ge=0, lt=1)] = 0.1
        hue_degrees: Annotated[float, Field(ge=0, le=180)] = 0.0

        def acts_on(self, shape: tuple[int, ...]) -> bool:
            """Whether there are colours to change."""
            turned = self.hue_degrees > 0 and shape[0] == 3
            return self.probability > 0 and ((self.strength > 0 and shape[0] > 1) or turned)

    config: Config
    order = 50
    draws = 5
    on = True

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        """Channels beyond the third have the gains of the first ones again."""
        u_BK, channels = draws.u_BK, images.shape[1]
        chosen_B = u_BK[:, 0] < self.config.probability
        if self.config.hue_degrees and channels == 3:
            angle_B = (2 * u_BK[:, 4] - 1) * math.radians(self.config.hue_degrees)
            images = turned_hue(images, torch.where(chosen_B, angle_B, 0.0))
        if not self.config.strength:
            return images
        gains_B3 = torch.where(chosen_B[:, None], 1 + (2 * u_BK[:, 1:4] - 1) * self.config.strength, 1.0)
        gains_BC = torch.cat([gains_B3] * -(-channels // 3), dim=1)[:, :channels]
        return images.mul_(gains_BC.to(images.dtype).view(*gains_BC.shape, *[1] * (images.ndim - 2)))


def turned_hue(images: Tensor, angle_B: Tensor) -> Tensor:
    """Red, green and blue turned about the axis on which all three are equal.

    Args:
        images: ``B,3,...``.
        angle_B: in radians; a third of a circle makes red of green, green of blue and blue of red.
    """
    cos, third = angle_B.cos(), (1 - angle_B.cos()) / 3
    side = angle_B.sin() / math.sqrt(3)
    same, next_one, one_after = (column(each, images[:, 0]) for each in (cos + third, third + side, third - side))
    # A sum of products: the rounding of a product of matrices may depend on how many there are.
    red, green, blue = images.unbind(1)
    turned = [
        same * first + next_one * second + one_after * third_one
        for first, second, third_one in ((red, green, blue), (green, blue, red), (blue, red, green))
    ]
    return torch.stack(turned, dim=1)
