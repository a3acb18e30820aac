"""Second-order pooling: the covariance of the tokens, mapped on the manifold of such matrices, then one linear layer.

SPDNet (Huang and Van Gool, AAAI 2017): BiMap ``W' X W`` and ReEig in turn, then LogEig; or, in its place, the square
root by Newton-Schulz (Li et al., iSQRT-COV, CVPR 2018). It tells cases apart whose means are equal and whose
correlations differ.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal

import torch
from pydantic import Field
from timm.layers import trunc_normal_
from torch import Tensor, nn

from data_shards.support.documents import Document
from data_shards.support.errors import ConfigError, DataError
from finetune.heads.base import Head, register_head
from finetune.heads.features import CaseFeatures
from finetune.spd.covariance import covariance, shrunk
from finetune.spd.eigen import logarithm, rectified
from finetune.spd.newton_schulz import newton_schulz
from finetune.spd.stiefel import orthonormal
from finetune.spd.vector import vectorised


@register_head("spd")
class SpdHead(Head):
    """Outputs that are linear in the mapped covariance; neither the order of tokens nor padding changes them.

    Args:
        dim: channels of the tokens.
        outputs: numbers per case.
        config: the options.

    Raises:
        ConfigError: a size of ``dims`` is above the one before it.
    """

    class Config(Document):
        """Sizes of the matrices, and how they become vectors."""

        channels: int = Field(16, ge=2, description="channels of the covariance; at most those of the tokens")
        dims: list[int] = Field(default_factory=list, description="sizes after each BiMap, none above the one before")
        map: Literal["log", "sqrt"] = Field("log", description="logarithm, or square root by Newton-Schulz")
        iterations: int = Field(15, ge=1, description="of Newton-Schulz")
        shrinkage: float = Field(0.1, gt=0, lt=1, description="share of the identity at the start; it is learned")
        dropout: float = Field(0.0, ge=0, lt=1, description="share of the vector dropped in a training step")

    def __init__(self, dim: int, outputs: int, config: Any) -> None:
        super().__init__(dim, outputs, config)
        sizes = [dim, min(config.channels, dim), *config.dims]
        if any(size < 1 or size > before for before, size in pairwise(sizes)):
            raise ConfigError(
                f"head spd: dims {config.dims}: sizes are at least 1, none above the one before, {sizes[1]}"
            )
        self.maps = nn.ParameterList([nn.Parameter(orthonormal(before, size)) for before, size in pairwise(sizes)])
        self.shrinkage = nn.Parameter(torch.logit(torch.tensor([config.shrinkage])))
        self.norm = nn.LayerNorm(dim, elementwise_affine=False)
        self.norm_pooled = nn.LayerNorm(sizes[-1] * (sizes[-1] + 1) // 2, elementwise_affine=False)
        self.dropout = nn.Dropout(config.dropout)
        self.linear = nn.Linear(sizes[-1] * (sizes[-1] + 1) // 2, outputs)
        trunc_normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)

    def param_groups(self) -> list[dict[str, Any]]:
        """As of every head, but the maps stay on the Stiefel manifold."""
        return [
            {"params": list(self.maps), "manifold": "stiefel", "weight_decay": 0.0},
            # The vector is of unit size over its many coordinates, most of which all cases share; the differences that
            # tell classes apart are small, and at the rate of other heads the layer hardly leaves its start.
            {"params": [self.linear.weight], "lr_scale": 10.0},
            {"params": [self.linear.bias], "lr_scale": 10.0, "weight_decay": 0.0},
            {"params": [self.shrinkage], "weight_decay": 0.0},
        ]

    def pool(self, features: CaseFeatures) -> Tensor:
        """The mapped covariances as vectors ``(B, C (C + 1) / 2)``, float32.

        Raises:
            DataError: a case has one token.
        """
        tokens_BTD, weight_BT = features.tokens, features.weight_BT
        fewest = tokens_BTD.shape[1] if weight_BT is None else int((weight_BT > 0).sum(dim=1).min())
        if fewest < 2:
            raise DataError(f"head spd: a covariance needs two tokens at least, a case has {fewest}")
        with torch.autocast(tokens_BTD.device.type, enabled=False):
            reduce, *maps = self.maps
            matrix = shrunk(
                covariance(self.norm(tokens_BTD.to(reduce.dtype)) @ reduce, weight_BT), self.shrinkage.sigmoid()
            )
            for weight in maps:
                matrix = weight.mT @ rectified(matrix) @ weight
            root = logarithm(matrix) if self.config.map == "log" else newton_schulz(matrix, self.config.iterations)
            return vectorised(root)

    def forward(self, features: CaseFeatures) -> Tensor:
        """Outputs ``(B, O)``."""
        outputs_BO: Tensor = self.linear(self.dropout(self.norm_pooled(self.pool(features))))
        return outputs_BO
