"""Attention pooling over the dense tokens, then one linear layer.

Pooling by multi-head attention with one learned query (PMA with a single seed: Lee et al., Set Transformer, ICML 2019,
section 3.2, without its feed-forward layers, which few labels cannot support). It is attention-based pooling in
the sense of Ilse et al. (ICML 2018), a weighted mean whose weights are computed from the tokens, with several heads.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from timm.layers import trunc_normal_
from torch import Tensor, nn

from data_shards.support.documents import Document
from finetune.heads.base import Head, register_head
from finetune.heads.features import CaseFeatures
from pretrain.backbone.bare import Repeated


@register_head("attention")
class AttentionHead(Head):
    """A learned query attends to the tokens of a case; the result does not depend on their order.

    The values are the normalised tokens themselves, cut into heads, so the only new weights are those that say where
    to look and those of the classifier.

    Args:
        dim: channels of the tokens; divisible by ``config.heads``.
        outputs: numbers per case.
        config: the options.

    Raises:
        ValueError: ``heads`` does not divide ``dim``.
    """

    class Config(Document):
        """How many queries, and how much of what they find is dropped in training."""

        heads: int = Field(4, ge=1, description="each looks at its own share of the channels")
        dropout: float = Field(0.0, ge=0, lt=1, description="share of the pooled vector dropped in a training step")

    def __init__(self, dim: int, outputs: int, config: Any) -> None:
        super().__init__(dim, outputs, config)
        heads = config.heads
        if dim % heads:
            raise ValueError(f"{heads} heads do not divide {dim} channels")
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.key = nn.Linear(dim, dim)
        self.query_HE = nn.Parameter(torch.empty(heads, dim // heads))
        self.repeated = Repeated()
        self.norm_pooled = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(config.dropout)
        self.linear = nn.Linear(dim, outputs)
        for weight in (self.key.weight, self.query_HE, self.linear.weight):
            trunc_normal_(weight, std=0.02)
        nn.init.zeros_(self.key.bias)
        nn.init.zeros_(self.linear.bias)

    def pool(self, features: CaseFeatures) -> Tensor:
        """The weighted means of the heads side by side, ``(B, D)``."""
        tokens_BTD = self.norm(features.tokens)
        key_BHTE, value_BHTE = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.key(tokens_BTD), tokens_BTD)
        )
        query_BH1E = self.repeated(self.query_HE, len(tokens_BTD))[:, :, None]
        mask_BT = features.mask_BT
        mask = None if mask_BT is None else mask_BT[:, None, None]
        return F.scaled_dot_product_attention(query_BH1E, key_BHTE, value_BHTE, mask).flatten(1)

    def forward(self, features: CaseFeatures) -> Tensor:
        """Outputs ``(B, O)``."""
        outputs_BO: Tensor = self.linear(self.dropout(self.norm_pooled(self.pool(features))))
        return outputs_BO
