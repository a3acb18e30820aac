"""A spike in k-space: stripes over the whole image."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from finetune.shift.base import Corruption, register_corruption
from pretrain.views.random import uniforms

_LEAST, _MOST = 0.05, 0.25


@register_corruption("spike")
class Spike(Corruption):
    """Stripes, herringbone: one point of k-space is too bright (as RandomSpike of TorchIO), interference of a detector.

    The image gets ``amount cos(2 pi k x + phase)``; k has between 0.05 and 0.25 cycles per pixel along every axis. It
    and the phase are drawn for each image.
    """

    words = "stripes over the whole image, as of a spike in k-space or electric interference"
    unit = "amplitude, share of the range"
    amounts = (0.04, 0.08, 0.14, 0.22, 0.35)

    def changed(self, images: Tensor, keys_B: Tensor, amount: float) -> Tensor:
        """One wave for each image."""
        axes = images.ndim - 2
        u_BK = uniforms(keys_B, 2 * axes + 1)
        angle = (2 * math.pi * u_BK[:, -1]).view(-1, *[1] * axes)
        for axis, length in enumerate(images.shape[2:]):
            sign_B = torch.where(u_BK[:, axes + axis] < 0.5, -1.0, 1.0)
            cycles_B = sign_B * (_LEAST + (_MOST - _LEAST) * u_BK[:, axis])
            at_L = torch.arange(length, device=images.device, dtype=torch.float64)
            shape = [-1, *[1] * axis, length, *[1] * (axes - axis - 1)]
            angle = angle + (2 * math.pi * cycles_B[:, None] * at_L).view(shape)
        return images.add_(amount * angle.cos().to(images.dtype)[:, None])
