"""What a linear classifier can be put on: raw pixels, a random network, a pretrained one."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from finetune.cases import Cases
from finetune.fit.features import summaries
from finetune.fit.raw import raw_pixels
from pretrain.backbone import Backbone


class Representation(Protocol):
    """Turns cases into one vector each."""

    name: str

    def __call__(self, cases: Cases) -> np.ndarray:
        """Features ``(N, D)``."""
        ...


class RawPixels:
    """Intensities in [0, 1], averaged down to at most 28 along each axis."""

    name = "raw pixels"

    def __call__(self, cases: Cases) -> np.ndarray:
        """Features ``(N, F)``."""
        return raw_pixels(cases)


class Frozen:
    """A network that is not trained further.

    Args:
        name: of the representation, as tables show it.
        backbone: encodes the images.
        reads: one of :data:`finetune.heads.features.SUMMARIES`.
    """

    def __init__(self, name: str, backbone: Backbone, reads: str = "embedding") -> None:
        self.name = name
        self._backbone = backbone
        self._reads = reads

    def __call__(self, cases: Cases) -> np.ndarray:
        """Features ``(N, D)``."""
        return summaries(self._backbone, cases, dense=self._reads != "embedding").read(self._reads)
