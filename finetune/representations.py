"""What a linear classifier can be put on: raw pixels, a random network, a pretrained one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from finetune.features import embed, rows_at_once
from finetune.labelled import LabelledImages
from pretrain.backbone import Medformer

RAW_SIDE = 28

Reads = Literal["embedding", "mean of tokens", "mean and spread of tokens"]
"""What is read of a frozen network; the spread is the standard deviation of each channel over the tokens."""


class Representation(Protocol):
    """Turns images into one vector each."""

    name: str

    def __call__(self, images: LabelledImages) -> np.ndarray:
        """Features ``(N, D)``."""
        ...


class RawPixels:
    """Intensities in [0, 1], averaged down to at most 28 along each axis."""

    name = "raw pixels"

    def __call__(self, images: LabelledImages) -> np.ndarray:
        """Features ``(N, C * h * w)``, of volumes ``(N, C * d * h * w)``."""
        sides = tuple(min(side, RAW_SIDE) for side in images.images.shape[2:])
        average: Callable[..., Tensor] = F.adaptive_avg_pool2d if len(sides) == 2 else F.adaptive_avg_pool3d
        size = rows_at_once(images.images.shape)
        parts = []
        for start in range(0, len(images), size):
            pixels = torch.from_numpy(images.images[start : start + size].astype(np.float32)) / 255
            if tuple(pixels.shape[2:]) != sides:
                pixels = average(pixels, sides)
            parts.append(pixels.flatten(1).numpy())
        return np.concatenate(parts)


class Frozen:
    """A network that is not trained further.

    Args:
        name: of the representation, as tables show it.
        backbone: encodes the images.
        reads: its embedding, the mean of its dense tokens, or their mean beside their standard deviation (statistics
            pooling, Snyder et al., ICASSP 2018, section 2), which tells what is everywhere from what is in places.
    """

    def __init__(self, name: str, backbone: Medformer, reads: Reads = "embedding") -> None:
        self.name = name
        self._backbone = backbone
        self._reads = reads

    def __call__(self, images: LabelledImages) -> np.ndarray:
        """Features ``(N, D)``, with the spread of the tokens ``(N, 2 D)``."""
        given = (self._backbone, images.images, images.metadata)
        if self._reads == "embedding":
            return embed(*given, spacing_mm=images.spacing_mm)
        reduce = _mean if self._reads == "mean of tokens" else _mean_and_spread
        return embed(*given, spacing_mm=images.spacing_mm, reads="tokens", reduce=reduce)


def _mean(tokens_BTD: Tensor) -> Tensor:
    return tokens_BTD.float().mean(dim=1)


def _mean_and_spread(tokens_BTD: Tensor) -> Tensor:
    return torch.cat([_mean(tokens_BTD), tokens_BTD.float().std(dim=1, correction=0)], dim=1)
