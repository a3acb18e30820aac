"""Covariance of tokens, with shrinkage toward a multiple of the identity (Ledoit and Wolf, 2004)."""

from __future__ import annotations

import torch
from torch import Tensor


def covariance(tokens_BTC: Tensor, weights_BT: Tensor | None = None) -> Tensor:
    """Covariances ``(B, C, C)`` over tokens, in float32 at least.

    Args:
        tokens_BTC: tokens.
        weights_BT: what each counts, at least 0; 0 where it is padding. They are divided by their sum.
    """
    with torch.autocast(tokens_BTC.device.type, enabled=False):
        tokens_BTC = tokens_BTC if tokens_BTC.dtype == torch.float64 else tokens_BTC.float()
        if weights_BT is None:
            centred_BTC = tokens_BTC - tokens_BTC.mean(dim=1, keepdim=True)
            return centred_BTC.mT @ centred_BTC / tokens_BTC.shape[1]
        weights_BT1 = weights_BT.to(tokens_BTC.dtype)[..., None]
        # Padding may hold anything, not a number included.
        tokens_BTC = tokens_BTC.masked_fill(weights_BT1 == 0, 0.0)
        weights_BT1 = weights_BT1 / weights_BT1.sum(dim=1, keepdim=True)
        centred_BTC = tokens_BTC - weights_BT1.mT @ tokens_BTC
        return (weights_BT1 * centred_BTC).mT @ centred_BTC


def shrunk(matrix: Tensor, share: Tensor | float, floor: float = 1e-5) -> Tensor:
    """``(1 - a) C + a tr(C) / c I + floor I``: positive definite even where all tokens are equal."""
    identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    mean = matrix.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    return (1 - share) * matrix + (share * mean + floor) * identity
