"""What all tokens of an image say together: their mean and their spread."""

from __future__ import annotations

import torch
from torch import Tensor


def token_mean(tokens_BTD: Tensor, weight_BT: Tensor | None = None) -> Tensor:
    """The mean ``B, D`` of the tokens of each sample.

    Args:
        tokens_BTD: the tokens.
        weight_BT: the share of each, 1 in sum; None where all are equal.
    """
    if weight_BT is None:
        return tokens_BTD.mean(dim=1)
    return torch.einsum("bt,btd->bd", weight_BT.to(tokens_BTD.dtype), tokens_BTD)


def token_spread(tokens_BTD: Tensor, weight_BT: Tensor | None = None) -> Tensor:
    """The standard deviation ``B, D`` of each channel over the tokens of each sample.

    Statistics pooling (Snyder et al., X-vectors, ICASSP 2018, section 2): it tells what is everywhere from what is in
    places.

    Args:
        tokens_BTD: the tokens.
        weight_BT: see :func:`token_mean`.
    """
    away = tokens_BTD - token_mean(tokens_BTD, weight_BT)[:, None]
    variance = token_mean(away.square(), weight_BT)
    # The root has no gradient at 0, where all tokens of a channel are equal.
    return torch.where(variance > 0, variance.clamp(min=torch.finfo(variance.dtype).tiny).sqrt(), 0.0)
