"""Gaussian blur."""

from __future__ import annotations

import math
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from pretrain.views.transforms.base import Change, Draws, SometimesConfig, transform
from pretrain.views.values import where_chosen

_LEAST_PX = 0.1


def blurred(images: Tensor, sigma_px_B: Tensor, reach: int) -> Tensor:
    """Gaussian blur along every axis, mirrored at the edges.

    Args:
        images: ``B,C,...``.
        sigma_px_B: standard deviation for each image, in pixels or voxels.
        reach: largest radius of the kernel; an axis of a volume that is shorter shortens its own, the sides of planes
            shorten both.
    """
    shortest = min(images.shape[-2:]) if images.ndim == 4 else None
    for axis in range(2, images.ndim):
        radius = min(reach, (shortest or images.shape[axis]) - 1)
        at = torch.arange(-radius, radius + 1, device=images.device)
        weights_BK = (-0.5 * (at / sigma_px_B[:, None]).square()).exp()
        weights_BK = (weights_BK / _summed(weights_BK)[:, None]).to(images.dtype)
        images = _convolved(images, weights_BK, radius, axis)
    return images


def _summed(weights_BK: Tensor) -> Tensor:
    total_B = weights_BK[:, 0]
    for tap in range(1, weights_BK.shape[1]):
        total_B = total_B + weights_BK[:, tap]
    return total_B


def _convolved(images: Tensor, weights_BK: Tensor, radius: int, axis: int) -> Tensor:
    # A sum of shifted images, not a convolution: its rounding does not depend on how many images there are.
    last = images.ndim - 1
    sides = [0, 0] * (last - axis) + [radius, radius] + [0, 0] * (axis - 2)  # F.pad begins with the last axis.
    padded = F.pad(images, sides, mode="reflect")
    weights = [weights_BK[:, tap].view(-1, *[1] * (images.ndim - 1)) for tap in range(radius + 1)]
    total = padded.narrow(axis, radius, images.shape[axis]) * weights[radius]
    for tap in range(radius):  # The kernel is symmetric.
        pair = padded.narrow(axis, tap, images.shape[axis]) + padded.narrow(axis, 2 * radius - tap, images.shape[axis])
        total += pair.mul_(weights[tap])
    return total


@transform("blur")
class Blur(Change):
    """Gaussian blur, each image with a width of its own."""

    class Config(SometimesConfig):
        """Parameters.

        Attributes:
            probability: of blurring an image.
            sigma_px: largest standard deviation, in pixels or voxels along every axis; the smallest is 0.1.
        """

        probability: Annotated[float, Field(ge=0, le=1)] = 0.3
        sigma_px: Annotated[float, Field(ge=0, le=8)] = 1.0

        def acts_on(self, shape: tuple[int, ...]) -> bool:
            """Whether any image is blurred."""
            return self.probability > 0 and self.sigma_px > 0

    config: Config
    order = 80
    draws = 2
    on = True

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        """The kernel reaches two and a half of the largest deviations."""
        most_px = self.config.sigma_px
        least_px = min(_LEAST_PX, most_px)
        sigma_px_B = least_px + (most_px - least_px) * draws.u_BK[:, 1]
        reach = math.ceil(2.5 * most_px)
        chosen_B = draws.u_BK[:, 0] < self.config.probability
        return where_chosen(images, chosen_B, lambda part, sigma_B: blurred(part, sigma_B, reach), sigma_px_B)
