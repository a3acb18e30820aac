"""Mirrors."""

from __future__ import annotations

import torch
from torch import Tensor

from pretrain.views.maps import diagonal
from pretrain.views.transforms.base import Draws, Frame, Move, Probability, TransformConfig, transform


@transform("flip")
class Flip(Move):
    """Mirror the image along each axis with a probability of its own."""

    class Config(TransformConfig):
        """Parameters.

        Attributes:
            horizontal: probability of mirroring left and right; 0 where the side means something.
            vertical: probability of mirroring top and bottom.
            depth: of volumes: probability of mirroring the first and the last slice.
        """

        horizontal: Probability = 0.5
        vertical: Probability = 0.0
        depth: Probability = 0.0

        def acts_on(self, shape: tuple[int, ...]) -> bool:
            """Whether it mirrors along an axis that the image has."""
            return self.horizontal > 0 or self.vertical > 0 or (self.depth > 0 and len(shape) == 4)

    config: Config
    order = 50
    draws = 3
    on = True

    def maps(self, draws: Draws, frame: Frame) -> Tensor:
        """1 or -1 on the diagonal."""
        chances = (self.config.horizontal, self.config.vertical, self.config.depth)[: frame.axes]
        signs = [torch.where(draws.u_BK[:, axis] < chance, -1.0, 1.0) for axis, chance in enumerate(chances)]
        return diagonal(torch.stack(signs, dim=1).to(torch.float64))
