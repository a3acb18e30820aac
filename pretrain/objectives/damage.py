"""What is done to images so that a network may learn to undo it; normalised planes and volumes, each by its own key."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from pretrain.views.random import normals, stream, uniforms
from pretrain.views.resolution import coarsen
from pretrain.views.values import column

_KNOTS = 3
_LUMA = (0.299, 0.587, 0.114)
"""ITU-R BT.601."""


def noisy(images: Tensor, keys_B: Tensor, most: float) -> Tensor:
    """Gaussian noise whose deviation is evenly drawn from 0 to ``most``."""
    normal = normals(stream(keys_B, "damage.noise"), math.prod(images.shape[1:])).to(images).view_as(images)
    strength_B = uniforms(stream(keys_B, "damage.strength"), 1)[:, 0] * most
    return images + normal * column(strength_B, images)


def coarse(images: Tensor, factor: float) -> Tensor:
    """The same size, of averages over pixels or voxels ``factor`` times as long."""
    mode = "bilinear" if images.ndim == 4 else "trilinear"
    return F.interpolate(coarsen(images, factor), size=images.shape[2:], mode=mode)


def artefacts(images: Tensor, keys_B: Tensor, strength: float) -> Tensor:
    """A smooth bias field, stripes as of a spike in k-space, and a box of the mean intensity of the range.

    Args:
        images: normalised.
        keys_B: of the view.
        strength: largest logarithm of the bias, and largest amplitude of the stripes as a fraction of the full range.
    """
    axes, size = images.ndim - 2, images.shape[2:]
    knots = uniforms(stream(keys_B, "damage.field"), _KNOTS**axes) * 2 - 1
    field = knots.to(images).view(-1, 1, *[_KNOTS] * axes)
    field = F.interpolate(field, size=size, mode="bilinear" if axes == 2 else "trilinear", align_corners=True)
    damaged = ((images + 1) / 2) * (strength * field).exp()
    u_BK = uniforms(stream(keys_B, "damage.places"), 2 + 3 * axes)
    phase = column(u_BK[:, 0] * 2 * math.pi, images)
    inside = torch.ones_like(images[:, :1], dtype=torch.bool)
    for axis, length in enumerate(size):
        at = ((torch.arange(length, device=images.device) + 0.5) / length).to(images)
        at = at.view(*[1] * (2 + axis), -1, *[1] * (axes - axis - 1))
        waves_B, half_B, centre_B = u_BK[:, 2 + 3 * axis : 5 + 3 * axis].T
        phase = phase + column(2 * math.pi * (waves_B * length / 4).floor(), images) * at
        inside = inside & ((at - column(centre_B, images)).abs() < column(half_B / 4, images))
    damaged = damaged + phase.cos() * column(u_BK[:, 1] * strength, images)
    return (damaged * 2 - 1).masked_fill(inside, 0.0)


def grey(images: Tensor) -> Tensor:
    """The luminance of colour images, in each of their three channels."""
    weights = images.new_tensor(_LUMA).view(1, 3, *[1] * (images.ndim - 2))
    return (images * weights).sum(dim=1, keepdim=True).expand_as(images)
