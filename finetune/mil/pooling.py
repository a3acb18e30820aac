"""From the scores of instances to those of their bag: the order of instances and padding change nothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from finetune.mil.masks import checked, masked_max, masked_mean, masked_min


class MaxPooling(nn.Module):
    """The largest score: a bag is positive when one instance is (Dietterich et al., 1997)."""

    def forward(self, scores_BHO: Tensor, mask_BH: Tensor | None = None) -> Tensor:
        """Scores of bags ``(B, O)``.

        Raises:
            DataError: a bag has no instance.
        """
        return masked_max(scores_BHO, checked(scores_BHO, mask_BH))


class MeanPooling(nn.Module):
    """The mean of the scores, each instance of equal weight."""

    def forward(self, scores_BHO: Tensor, mask_BH: Tensor | None = None) -> Tensor:
        """Scores of bags ``(B, O)``. Raises: as :class:`MaxPooling`."""
        return masked_mean(scores_BHO, checked(scores_BHO, mask_BH))


class MaxMinPooling(nn.Module):
    """The largest plus the smallest score: what speaks for a class, and against it (Durand et al., ICCV 2015)."""

    def forward(self, scores_BHO: Tensor, mask_BH: Tensor | None = None) -> Tensor:
        """Scores of bags ``(B, O)``. Raises: as :class:`MaxPooling`."""
        mask_BH = checked(scores_BHO, mask_BH)
        return masked_max(scores_BHO, mask_BH) + masked_min(scores_BHO, mask_BH)


class TopBottomPooling(nn.Module):
    """The mean of the highest scores, and ``alpha`` times that of the lowest.

    Durand et al., WILDCAT, CVPR 2017, eq. 1. The sum is halved when both count, as in the code of the authors.

    Args:
        top: how many of the highest: a share of the instances of a bag below 1, else a number; at least one is taken
            and at most all.
        bottom: how many of the lowest, likewise; 0 for none.
        alpha: their weight.
    """

    def __init__(self, top: float = 0.2, bottom: float = 0.0, alpha: float = 1.0) -> None:
        super().__init__()
        self.top, self.bottom, self.alpha = top, bottom, alpha

    def forward(self, scores_BHO: Tensor, mask_BH: Tensor | None = None) -> Tensor:
        """Scores of bags ``(B, O)``. Raises: as :class:`MaxPooling`."""
        mask_BH = checked(scores_BHO, mask_BH)
        highest_BO = mean_of_highest(scores_BHO, mask_BH, self.top)
        if self.bottom == 0 or self.alpha == 0:
            return highest_BO
        return (highest_BO - self.alpha * mean_of_highest(-scores_BHO, mask_BH, self.bottom)) / 2


def mean_of_highest(scores_BHO: Tensor, mask_BH: Tensor, k: float) -> Tensor:
    """The mean of the ``k`` highest scores of each output, ``(B, O)``; ``k`` as of :class:`TopBottomPooling`."""
    size_B = mask_BH.sum(dim=1)
    number_B = (k * size_B).round() if k < 1 else torch.full_like(size_B, round(k))
    number_B = number_B.long().clamp(min=1).minimum(size_B)
    sorted_BHO = scores_BHO.masked_fill(~mask_BH[..., None], -torch.inf).sort(dim=1, descending=True).values
    taken_BH = torch.arange(scores_BHO.shape[1], device=scores_BHO.device) < number_B[:, None]
    return masked_mean(sorted_BHO, taken_BH)


class GatedAttention(nn.Module):
    """A weighted mean of embeddings whose weights are computed from them (Ilse et al., ICML 2018, eq. 8 and 9).

    ``a = softmax(w' (tanh(V h) * sigmoid(U h)))``; without the gate ``softmax(w' tanh(V h))``.

    Args:
        dim: channels of the embeddings.
        hidden: of ``V`` and ``U``.
        gated: whether there is ``U``.
    """

    def __init__(self, dim: int, hidden: int = 128, *, gated: bool = True) -> None:
        super().__init__()
        self.content = nn.Linear(dim, hidden)
        self.gate = nn.Linear(dim, hidden) if gated else None
        self.score = nn.Linear(hidden, 1, bias=False)

    def weights(self, embeddings_BHD: Tensor, mask_BH: Tensor | None = None) -> Tensor:
        """The weights ``(B, H)``, 1 in sum, 0 where there is no instance.

        Raises:
            DataError: a bag has no instance.
        """
        mask = checked(embeddings_BHD, mask_BH)
        if mask_BH is None:
            return self._scores(embeddings_BHD).softmax(dim=1)
        places_M = mask.flatten().nonzero()[:, 0]
        return self._spread(embeddings_BHD.flatten(0, 1).index_select(0, places_M), places_M, mask)

    def forward(self, embeddings_BHD: Tensor, mask_BH: Tensor | None = None) -> Tensor:
        """The weighted means ``(B, D)``. Raises: as :meth:`weights`."""
        if mask_BH is None:
            return (self.weights(embeddings_BHD)[:, None] @ embeddings_BHD)[:, 0]
        mask_BH = checked(embeddings_BHD, mask_BH)
        places_M = mask_BH.flatten().nonzero()[:, 0]
        embeddings_MD = embeddings_BHD.flatten(0, 1).index_select(0, places_M)
        weights_M = self._spread(embeddings_MD, places_M, mask_BH).flatten().index_select(0, places_M)
        weighted_MD = weights_M[:, None] * embeddings_MD
        bags_M = places_M // mask_BH.shape[1]
        return weighted_MD.new_zeros(len(mask_BH), weighted_MD.shape[1]).index_add(0, bags_M, weighted_MD)

    def _spread(self, embeddings_MD: Tensor, places_M: Tensor, mask_BH: Tensor) -> Tensor:
        """Weights ``(B, H)``, computed of instances alone: padding costs no time, whatever stands in it."""
        scores_M = self._scores(embeddings_MD)
        scores_BH = scores_M.new_full((mask_BH.numel(),), -torch.inf).index_copy(0, places_M, scores_M)
        return scores_BH.view_as(mask_BH).softmax(dim=1)

    def _scores(self, embeddings: Tensor) -> Tensor:
        hidden = torch.tanh(self.content(embeddings))
        if self.gate is not None:
            hidden = hidden * torch.sigmoid(self.gate(embeddings))
        scores: Tensor = self.score(hidden)[..., 0]
        return scores


def weighted_sum(weights_BH: Tensor, values_BHD: Tensor) -> Tensor:
    """The sum over instances ``(B, D)``; what has weight 0 counts nothing, whatever stands there."""
    present_BH1 = (weights_BH > 0)[..., None]
    return (weights_BH[:, None] @ values_BHD.masked_fill(~present_BH1, 0))[:, 0]
