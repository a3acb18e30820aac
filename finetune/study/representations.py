"""What a linear classifier can be put on: raw pixels, a random network, a pretrained one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from finetune.cases import Cases
from finetune.fit.features import summaries
from finetune.fit.raw import raw_pixels
from finetune.windows import windowed
from pretrain.backbone import Backbone


class Representation(Protocol):
    """Turns cases into one vector each.

    Attributes:
        name: as tables show it.
        model: of the network; ``raw pixels`` where there is none.
        weights: ``pretrained``, ``random`` or ``none``.
    """

    name: str
    model: str
    weights: str

    def __call__(self, cases: Cases) -> np.ndarray:
        """Features ``(N, D)``."""
        ...


class RawPixels:
    """Intensities in [0, 1], averaged down to at most 28 along each axis."""

    name = model = "raw pixels"
    weights = "none"

    def __call__(self, cases: Cases) -> np.ndarray:
        """Features ``(N, F)``."""
        return raw_pixels(cases)


class Frozen:
    """A network that is not trained further.

    Args:
        name: of the representation, as tables show it.
        backbone: encodes the images.
        reads: one of :data:`finetune.heads.features.SUMMARIES`.
        model: of the network; the name when left out.
        weights: ``pretrained`` or ``random``.
        window: voxels of the windows that larger images are read in; None reads them whole.
        overlap: of neighbouring windows, as a fraction of their sides.
    """

    def __init__(
        self,
        name: str,
        backbone: Backbone,
        reads: str = "embedding",
        model: str = "",
        weights: str = "pretrained",
        window: Sequence[int] | None = None,
        overlap: float = 0.5,
    ) -> None:
        self.name = name
        self.model, self.weights = model or name, weights
        self._backbone = backbone
        self._reads = reads
        self._window, self._overlap = window, overlap

    def __call__(self, cases: Cases) -> np.ndarray:
        """Features ``(N, D)``."""
        cases = windowed(cases, self._window, self._overlap)
        return summaries(self._backbone, cases, dense=self._reads != "embedding").read(self._reads)
