"""Jitter of histological stains."""

from __future__ import annotations

import functools
import math
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from data_shards.support.errors import ConfigError
from pretrain.views.transforms.base import Change, Draws, SometimesConfig, transform
from pretrain.views.values import column

STAINS = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))
"""Absorption of red, green and blue by haematoxylin, eosin and DAB (Ruifrok and Johnston, 2001); of length 1 each."""
_DARKEST = 1 / 255


@functools.cache
def unmixing() -> tuple[tuple[float, ...], ...]:
    """The inverse of :data:`STAINS`: from absorptions, as a row, to amounts of stain."""
    return tuple(map(tuple, np.linalg.inv(np.array(STAINS)).tolist()))


@transform("stain")
class Stain(Change):
    """Other amounts of haematoxylin, eosin and DAB (Tellez et al., IEEE TMI 2018, section III).

    By the law of Lambert and Beer the optical density ``-log10`` of a colour is a sum over stains, which is taken apart
    (Ruifrok and Johnston, 2001); each amount is multiplied by a random factor and raised by a random term.
    """

    class Config(SometimesConfig):
        """Parameters.

        Attributes:
            probability: of changing an image.
            strength: factors are drawn from ``1 - strength`` to ``1 + strength``.
            shift: terms are drawn from ``-shift`` to ``shift``, in units of optical density.
        """

        strength: Annotated[float, Field(ge=0, lt=1)] = 0.05
        shift: Annotated[float, Field(ge=0, le=1)] = 0.02

        def acts_on(self, shape: tuple[int, ...]) -> bool:
            """Whether amounts change."""
            return self.probability > 0 and (self.strength > 0 or self.shift > 0)

    config: Config
    order = 10
    draws = 7

    @classmethod
    def check_data(cls, config: Any, shape: tuple[int, ...]) -> None:
        """Refuse what is no colour image."""
        if shape[0] != 3:
            raise ConfigError(f"stains are taken apart of images of 3 channels, these have {shape[0]}; stain: null")

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        """``10 ** -(alpha * stains + beta)``, mixed back."""
        u_BK = draws.u_BK
        chosen_B1 = (u_BK[:, 0] < self.config.probability)[:, None]
        alpha_B3 = torch.where(chosen_B1, 1 + (2 * u_BK[:, 1:4] - 1) * self.config.strength, 1.0)
        beta_B3 = torch.where(chosen_B1, (2 * u_BK[:, 4:7] - 1) * self.config.shift, 0.0)
        return restained(images, alpha_B3, beta_B3)


def restained(images: Tensor, alpha_B3: Tensor, beta_B3: Tensor) -> Tensor:
    """Images, which are overwritten, with other amounts of the three stains.

    Args:
        images: ``B,3,...`` in [0, 1]; darker than 1/255 counts as that.
        alpha_B3: factor of each amount.
        beta_B3: term added to it, in units of optical density.
    """
    apart = unmixing()
    logs = images.clamp_(_DARKEST, 1).log_().unbind(1)
    changed = []
    for colour in range(3):
        # The logarithms of a colour are those of all three by a matrix for each image: apart, times alpha, and mixed.
        weights = [
            sum((alpha_B3[:, s] * (apart[given][s] * STAINS[s][colour]) for s in range(1, 3)),
                alpha_B3[:, 0] * (apart[given][0] * STAINS[0][colour]))
            for given in range(3)
        ]  # fmt: skip
        term_B = sum((beta_B3[:, s] * STAINS[s][colour] for s in range(1, 3)), beta_B3[:, 0] * STAINS[0][colour])
        total = column(-math.log(10) * term_B, logs[0])
        for given, weight_B in enumerate(weights):
            total = total + logs[given] * column(weight_B, logs[0])
        changed.append(total)
    return torch.stack(changed, dim=1).exp_()
