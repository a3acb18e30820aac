"""Attention pooling over the dense tokens, then one linear layer.

Pooling by multi-head attention with one learned query (PMA with a single seed: Lee et al., Set Transformer, ICML 2019,
section 3.2, without its feed-forward layers, which few labels cannot support). It is attention-based pooling in
the sense of Ilse et al. (ICML 2018), a weighted mean whose weights are computed from the tokens, with several heads.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from timm.layers import trunc_normal_
from torch import Tensor, nn

from finetune.heads.base import Head, register_head


@register_head("attention")
class AttentionHead(Head):
    """A learned query attends to the tokens; the result does not depend on their order.

    The values are the normalised tokens themselves, cut into heads, so the only new weights are those that say where
    to look and those of the classifier.

    Args:
        dim: channels of the tokens; divisible by ``heads``.
        outputs: number of logits.
        heads: each looks at its own share of the channels.

    Raises:
        ValueError: ``heads`` does not divide ``dim``.
    """

    reads: ClassVar[Literal["embedding", "tokens"]] = "tokens"

    def __init__(self, dim: int, outputs: int, heads: int = 4) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"{heads} heads do not divide {dim} channels")
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.key = nn.Linear(dim, dim)
        self.query_HE = nn.Parameter(torch.empty(heads, dim // heads))
        self.norm_pooled = nn.LayerNorm(dim)
        self.linear = nn.Linear(dim, outputs)
        for weight in (self.key.weight, self.query_HE, self.linear.weight):
            trunc_normal_(weight, std=0.02)
        nn.init.zeros_(self.key.bias)
        nn.init.zeros_(self.linear.bias)

    def pool(self, tokens_BTD: Tensor) -> Tensor:
        """The weighted means of the heads side by side, ``(B, D)``."""
        tokens_BTD = self.norm(tokens_BTD)
        key_BHTE, value_BHTE = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.key(tokens_BTD), tokens_BTD)
        )
        query_BH1E = self.query_HE[None, :, None].expand(len(tokens_BTD), -1, -1, -1)
        return F.scaled_dot_product_attention(query_BH1E, key_BHTE, value_BHTE).flatten(1)

    def forward(self, tokens_BTD: Tensor) -> Tensor:
        """Logits ``(B, K)``."""
        logits_BK: Tensor = self.linear(self.norm_pooled(self.pool(tokens_BTD)))
        return logits_BK
