"""Ghosts of MRI along the phase-encoding axis."""

from __future__ import annotations

import torch
from torch import Tensor

from finetune.shift.base import Corruption, register_corruption
from pretrain.views.random import uniforms

_MOST_GHOSTS = 4


@register_corruption("ghosting")
class Ghosting(Corruption):
    """Fainter copies side by side, as breathing, pulsation or an echo-planar read-out give them.

    Every n-th line of k-space but the middle one is weakened, as RandomGhosting of TorchIO (Perez-Garcia et al., 2021)
    does; n, from 2 to 4, and the axis are drawn for each image. What is taken away is ``amount / n`` times the sum of n
    copies, each moved by the n-th part of the field, less the mean along the axis.
    """

    words = "fainter copies along an axis, as of breathing or pulsation in MRI"
    unit = "share of every n-th line of k-space that is lost"
    amounts = (0.15, 0.3, 0.5, 0.75, 1.0)

    def changed(self, images: Tensor, keys_B: Tensor, amount: float) -> Tensor:
        """Each image along its axis."""
        u_B2, axes = uniforms(keys_B, 2), images.ndim - 2
        ghosts_B = 2 + (u_B2[:, 0] * (_MOST_GHOSTS - 1)).floor().long()
        axis_B = 2 + (u_B2[:, 1] * axes).floor().long()
        found = [
            ghosted(image[None], int(ghosts), amount, int(axis))
            for image, ghosts, axis in zip(images, ghosts_B, axis_B, strict=True)
        ]
        return torch.cat(found)


def ghosted(images: Tensor, ghosts: int, amount: float, axis: int) -> Tensor:
    """Images of which every ``ghosts``-th line of k-space along an axis, but the middle one, lost a share.

    Args:
        images: of any shape.
        ghosts: a line in so many.
        amount: the share.
        axis: along which lines lie.
    """
    length = images.shape[axis]
    lines_L = torch.fft.fftfreq(length, 1 / length, device=images.device).round().long()
    weak_L = (lines_L % ghosts == 0) & (lines_L != 0)
    weight_L = torch.where(weak_L, 1 - amount, 1.0).view(-1, *[1] * (images.ndim - axis - 1))
    ghosts_in: Tensor = torch.fft.ifft(torch.fft.fft(images, dim=axis) * weight_L, dim=axis).real
    return ghosts_in
