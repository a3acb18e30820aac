"""What a head is given of a batch of cases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pretrain.backbone.pooling import token_mean, token_spread

SUMMARIES = ("embedding", "mean", "mean_spread", "embedding_mean_spread")
"""What can be read of a case as one vector, see :meth:`CaseFeatures.summary`."""


@dataclass(frozen=True)
class CaseFeatures:
    """What the backbone makes of ``B`` cases; a case with several studies has the tokens of all of them.

    Attributes:
        embedding_BD: one vector per case: the mean over its studies.
        tokens_BTD: one vector per cell of every image, or None when they were not asked for. Padded with zeros where
            cases have different numbers of them.
        weight_BT: the share of each token in the mean over the case: equal among the tokens of a study and among
            studies, 0 where there is no token, 1 in sum. None where all are equal.
        study_BT: which study of its case a token is of, int64; None where each case has one.
        studies_BSD: the embedding of each study, for heads that pool studies; None where each case has one.
        present_BS: which of those there are; None where all are.
        grid: cells along each axis, where every study of every case is one image of one shape; else None. The tokens of
            a study stand side by side in row-major order.
        image_BT: of which image of its study a token is, int64, as ``images`` counts them; None where all are of
            images of one name.
        images: the names of the images, sorted; empty where it is not known.
    """

    embedding_BD: Tensor
    tokens_BTD: Tensor | None = None
    weight_BT: Tensor | None = None
    study_BT: Tensor | None = None
    studies_BSD: Tensor | None = None
    present_BS: Tensor | None = None
    grid: tuple[int, ...] | None = None
    image_BT: Tensor | None = None
    images: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.embedding_BD)

    @property
    def tokens(self) -> Tensor:
        """The tokens, which must have been asked for."""
        assert self.tokens_BTD is not None, "a head over tokens needs dense features"
        return self.tokens_BTD

    @property
    def mask_BT(self) -> Tensor | None:
        """True where there is a token; None where all are."""
        return None if self.weight_BT is None else self.weight_BT > 0

    def mean(self) -> Tensor:
        """The mean of the tokens of each case, ``(B, D)``."""
        return token_mean(self.tokens, self.weight_BT)

    def spread(self) -> Tensor:
        """The standard deviation of each channel over the tokens of each case, ``(B, D)``."""
        return token_spread(self.tokens, self.weight_BT)

    def summary(self, reads: str) -> Tensor:
        """One of :data:`SUMMARIES`: ``(B, D)``, ``(B, 2 D)`` or ``(B, 3 D)``."""
        if reads == "embedding":
            return self.embedding_BD
        if reads == "mean":
            return self.mean()
        both = torch.cat([self.mean(), self.spread()], dim=1)
        return both if reads == "mean_spread" else torch.cat([self.embedding_BD, both], dim=1)

    def take(self, rows: Tensor) -> CaseFeatures:
        """The cases at ``rows``."""
        return self._each(lambda tensor: tensor[rows])

    def to(self, device: torch.device) -> CaseFeatures:
        """The same on ``device``."""
        return self._each(lambda tensor: tensor.to(device))

    def detached(self) -> CaseFeatures:
        """The same numbers without gradient."""
        return self._each(lambda tensor: tensor.detach())

    def _each(self, change: Callable[[Tensor], Tensor]) -> CaseFeatures:
        changed: dict[str, Any] = {
            name: change(value) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **changed)


def width_of(reads: str, dim: int) -> int:
    """How many numbers a summary has."""
    return dim * {"embedding": 1, "mean": 1, "mean_spread": 2, "embedding_mean_spread": 3}[reads]
