"""What all tokens of an image say together: their mean, their spread, and what these add to the embedding."""

from __future__ import annotations

import torch
from torch import Tensor, nn


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


class TokenPool(nn.Module):
    """A linear map of mean and spread of the tokens, to be added to what the latents answer to the embedding query.

    Args:
        dim: channels of the tokens and of the result.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Linear(2 * dim, dim)
        nn.init.xavier_uniform_(self.proj.weight)
        nn.init.zeros_(self.proj.bias)

    def forward(self, tokens_BTD: Tensor, mask_BT: Tensor | None = None) -> Tensor:
        """``B, dim``.

        Args:
            tokens_BTD: of all images of each sample.
            mask_BT: true where a token is of an image that is there; None where all are.
        """
        weight_BT = None
        if mask_BT is not None:
            there_BT = mask_BT.to(torch.promote_types(tokens_BTD.dtype, torch.float32))
            weight_BT = there_BT / there_BT.sum(dim=1, keepdim=True).clamp(min=1)
        both = [token_mean(tokens_BTD, weight_BT), token_spread(tokens_BTD, weight_BT)]
        added: Tensor = self.proj(torch.cat(both, dim=1))
        return added
