"""What the embedding is made of beside the answer of the latents."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pretrain.backbone.attention import CrossAttentionLayer
from pretrain.backbone.pooling import token_mean, token_spread

EMBEDDINGS = ("latents", "reads_tokens", "pooled_tokens")


class PooledTokens(nn.Module):
    """A linear map of mean and spread of the tokens is added to the answer.

    Statistics pooling, see :func:`~pretrain.backbone.pooling.token_spread`.

    Args:
        dim: channels of tokens and answer.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Linear(2 * dim, dim)

    def forward(self, answer_B1D: Tensor, tokens_BTD: Tensor, mask_BT: Tensor | None = None) -> Tensor:
        """``B, 1, D``.

        Args:
            answer_B1D: of the latents to the query of the embedding.
            tokens_BTD: those that the latents read.
            mask_BT: true where there is a token; None for everywhere. A sample without any adds the map of zeros.
        """
        weight_BT = None
        if mask_BT is not None:
            there_BT = mask_BT.to(torch.promote_types(tokens_BTD.dtype, torch.float32))
            weight_BT = there_BT / there_BT.sum(dim=1, keepdim=True).clamp(min=1)
        both = [token_mean(tokens_BTD, weight_BT), token_spread(tokens_BTD, weight_BT)]
        added_BD: Tensor = self.proj(torch.cat(both, dim=1))
        return answer_B1D + added_BD[:, None]


def embedding_reader(kind: str, dim: int, heads: int, widening: float) -> nn.Module | None:
    """What makes the embedding of the answer ``B, 1, D``, the tokens ``B, T, D`` and their mask; None for the answer.

    Args:
        kind: of :data:`EMBEDDINGS`. ``latents``: the embedding is the answer. ``reads_tokens``: the answer asks the
            tokens by a cross-attention. ``pooled_tokens``: see :class:`PooledTokens`.
        dim: channels.
        heads: of the attention.
        widening: of its MLP.

    Raises:
        ValueError: there is no such kind.
    """
    if kind not in EMBEDDINGS:
        raise ValueError(f"embedding {kind!r} is none of {', '.join(EMBEDDINGS)}")
    if kind == "reads_tokens":
        return CrossAttentionLayer(dim, dim, heads, widening)
    return PooledTokens(dim) if kind == "pooled_tokens" else None
