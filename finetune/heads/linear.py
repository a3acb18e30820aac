"""One linear layer on the embedding."""

from __future__ import annotations

from typing import ClassVar, Literal

from timm.layers import trunc_normal_
from torch import Tensor, nn

from finetune.heads.base import Head, register_head


@register_head("linear")
class LinearHead(Head):
    """Logits that are linear in the embedding.

    Args:
        dim: channels of the embedding.
        outputs: number of logits.
    """

    reads: ClassVar[Literal["embedding", "tokens"]] = "embedding"

    def __init__(self, dim: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, outputs)
        trunc_normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)

    def forward(self, embedding_BD: Tensor) -> Tensor:
        """Logits ``(B, K)``."""
        logits_BK: Tensor = self.linear(embedding_BD)
        return logits_BK
