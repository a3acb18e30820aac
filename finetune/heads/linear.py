"""One linear layer on a summary of the case.

On frozen features it is not trained by gradient: the penalised optimum is computed, see :mod:`finetune.fit.linear`.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field
from timm.layers import trunc_normal_
from torch import Tensor, nn

from data_shards.support.documents import Document
from finetune.heads.base import Head, register_head
from finetune.heads.features import CaseFeatures, width_of
from finetune.heads.instances import InstanceKind, Instances

SINGLE_READS = ("embedding", "mean_spread", "embedding_mean_spread")
"""Among which a linear head chooses that is solved first and trained further."""

DEFAULT_READS = "embedding_mean_spread"
"""Read where nothing can be held out to choose."""

FROZEN_READS = ("vote", "raw", "tangent")
"""Solved on frozen features, never trained."""

Reads = Literal["auto", "embedding", "mean", "mean_spread", "embedding_mean_spread", "vote", "raw", "tangent"]


@register_head("linear")
class LinearHead(Head):
    """Outputs that are linear in the embedding, or in mean and spread of the tokens.

    Args:
        dim: channels of the features.
        outputs: numbers per case.
        config: what it reads.
    """

    class Config(Document):
        """What is read of a case, and how much of it is dropped in training."""

        reads: Reads = Field(
            "auto",
            description="embedding, mean (of the tokens), mean_spread, embedding_mean_spread; on frozen features only: "
            "tangent, the covariance of the tokens in the tangent space at the mean of the training cases; raw, pixels "
            "alone, the network is not asked, to compare with; vote, the mean of the probabilities of embedding, "
            "mean_spread, tangent and raw, of those that the cases have. auto: vote on frozen features; where the "
            "network is trained, a single read chosen by cross-validation",
        )
        channels: int = Field(32, ge=2, description="of tangent: to how many channels covariances are reduced")
        dropout: float = Field(0.0, ge=0, lt=1, description="share of what is read that is dropped in a training step")

    def __init__(self, dim: int, outputs: int, config: Any) -> None:
        super().__init__(dim, outputs, config)
        # Trained by gradient, what is read is settled before; the embedding where nothing was settled.
        self.reads = "embedding" if config.reads in ("auto", *FROZEN_READS) else config.reads
        self.dropout = nn.Dropout(config.dropout)
        self.linear = nn.Linear(width_of(self.reads, dim), outputs)
        trunc_normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)

    @property
    def needs_tokens(self) -> bool:
        """The embedding needs none."""
        return self.reads != "embedding"

    @property
    def instance_kind(self) -> InstanceKind | None:
        """What it reads is a mean over them, and so is what it gives."""
        kinds: dict[str, InstanceKind] = {"mean": "token", "embedding": "study"}
        return kinds.get(self.reads)

    def instances(self, features: CaseFeatures) -> Instances | None:
        """Scores of tokens or studies whose weighted mean is the output, without dropout; None for other reads."""
        if self.instance_kind == "token":
            values, shares, present = features.tokens, features.weight_BT, features.mask_BT
        elif self.instance_kind == "study":
            values, shares, present = features.embedding_BD[:, None], None, None
            if features.studies_BSD is not None and features.present_BS is not None:
                values, present = features.studies_BSD, features.present_BS
                shares = present / present.sum(dim=1, keepdim=True)
        else:
            return None
        if shares is None:
            shares = values.new_full(values.shape[:2], 1 / values.shape[1])
        return Instances(self.linear(values), shares, present, self.instance_kind)

    def forward(self, features: CaseFeatures) -> Tensor:
        """Outputs ``(B, O)``."""
        outputs_BO: Tensor = self.linear(self.dropout(features.summary(self.reads)))
        return outputs_BO
