"""Lower resolution along every axis."""

from __future__ import annotations

import torch
from torch import Tensor

from finetune.shift.base import Corruption, register_corruption
from pretrain.views.transforms.anisotropy import thick_slices


@register_corruption("resolution")
class Resolution(Corruption):
    """Taken in larger pixels and interpolated back: a coarser matrix, a smaller detector."""

    words = "larger pixels, interpolated back, as of a coarser matrix"
    unit = "how many times as large"
    amounts = (1.5, 2.0, 2.5, 3.0, 4.0)

    def changed(self, images: Tensor, keys_B: Tensor, amount: float) -> Tensor:
        """Averages over larger pixels, linear between their centres, axis by axis."""
        thickness_B = torch.full((len(images),), amount, dtype=torch.float64, device=keys_B.device)
        for axis in range(2, images.ndim):
            images = thick_slices(images, thickness_B, axis)
        return images
