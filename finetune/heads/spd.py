"""Second-order pooling: the covariance of the tokens, mapped on the manifold of such matrices, then one linear layer.

SPDNet (Huang and Van Gool, AAAI 2017): BiMap ``W' X W`` and ReEig in turn, then LogEig; or, in its place, the square
root by Newton-Schulz (Li et al., iSQRT-COV, CVPR 2018). It tells cases apart whose means are equal and whose
correlations differ.

Several modalities are brought together early, at an intermediate step or late, as Olmos, Manzanera and Martinez do it
(Neural Computing and Applications 37, 2025; how each is built is our reading): one covariance of channels of all
modalities, with the blocks across them; a matrix of each, whose mean under the log-Euclidean metric goes on; a vector
of each, one after the other. ``pooled`` makes one covariance of the tokens of all modalities as if they were of one.
"""

from __future__ import annotations

from dataclasses import replace
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
from finetune.heads.modalities import by_image, side_by_side
from finetune.spd.covariance import covariance, shrunk
from finetune.spd.eigen import eigen_function, logarithm, rectified
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
        ConfigError: a size of ``dims`` is above the one before it, or there is nothing to join.
    """

    class Config(Document):
        """Sizes of the matrices, and how they become vectors."""

        channels: int = Field(16, ge=2, description="channels of the covariance; at most those of the tokens")
        dims: list[int] = Field(default_factory=list, description="sizes after each BiMap, none above the one before")
        map: Literal["log", "sqrt"] = Field("log", description="logarithm, or square root by Newton-Schulz")
        iterations: int = Field(15, ge=1, description="of Newton-Schulz")
        shrinkage: float = Field(0.1, gt=0, lt=1, description="share of the identity at the start; it is learned")
        dropout: float = Field(0.0, ge=0, lt=1, description="share of the vector dropped in a training step")
        fusion: Literal["pooled", "early", "intermediate", "late"] = Field(
            "pooled", description="of modalities: tokens as if of one image, or how covariances of each are joined"
        )
        images: list[str] = Field(
            default_factory=list, description="names of the modalities that are joined; those of the given cases"
        )

    def __init__(self, dim: int, outputs: int, config: Any) -> None:
        super().__init__(dim, outputs, config)
        if config.fusion != "pooled" and len(config.images) < 2:
            named = ", ".join(config.images) or "none"
            raise ConfigError(f"head spd: fusion {config.fusion} joins two modalities at least (images), found {named}")
        count = 1 if config.fusion == "pooled" else len(config.images)
        stacked, self.branches = (dim * count, 1) if config.fusion == "early" else (dim, count)
        sizes = [stacked, min(config.channels, stacked), *config.dims]
        if any(size < 1 or size > before for before, size in pairwise(sizes)):
            raise ConfigError(
                f"head spd: dims {config.dims}: sizes are at least 1, none above the one before, {sizes[1]}"
            )
        reduce = [nn.Parameter(orthonormal(stacked, sizes[1])) for _ in range(self.branches)]
        maps = [nn.Parameter(orthonormal(before, size)) for before, size in pairwise(sizes[1:])]
        self.maps = nn.ParameterList([*reduce, *maps])
        self.shrinkage = nn.Parameter(torch.logit(torch.tensor([config.shrinkage])))
        self.norm = nn.LayerNorm(dim, elementwise_affine=False)
        width = sizes[-1] * (sizes[-1] + 1) // 2 * (self.branches if config.fusion == "late" else 1)
        self.norm_pooled = nn.LayerNorm(width, elementwise_affine=False)
        self.dropout = nn.Dropout(config.dropout)
        self.linear = nn.Linear(width, outputs)
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
        """The mapped covariances as vectors, float32: ``(B, C (C + 1) / 2)``, with late fusion one of each modality.

        A modality that a case has not is 0 along its channels (early), is not in the mean (intermediate), or is the
        vector of the identity, which is 0 (late).

        Raises:
            DataError: a case has one token, or images that early fusion cannot join.
        """
        fusion, names = self.config.fusion, self.config.images
        with torch.autocast(features.tokens.device.type, enabled=False):
            tokens_BTD = self.norm(features.tokens.to(self.maps[0].dtype))
            features = replace(features, tokens_BTD=tokens_BTD)
            if fusion == "pooled":
                return vectorised(self._mapped(self._through(self._covariance(tokens_BTD, features.weight_BT, 0))))
            each = by_image(features, names)
            if fusion == "early":
                tokens_BTD, weight_BT = side_by_side(each)
                return vectorised(self._mapped(self._through(self._covariance(tokens_BTD, weight_BT, 0))))
            matrices, there = [], []
            for branch, mine in enumerate(each):
                assert mine.weight_BT is not None
                here_B = (mine.weight_BT > 0).any(dim=1)
                there.append(here_B.to(tokens_BTD.dtype)[:, None, None])
                # In place of an image that is not there stands the first token, and then a matrix that counts for 0.
                weight_BT = mine.weight_BT.clone()
                weight_BT[~here_B] = 1.0
                matrices.append(self._covariance(mine.tokens, weight_BT, branch, has=here_B))
            if fusion == "intermediate":
                count = torch.stack(there).sum(dim=0)
                logarithms = [logarithm(matrix) * has for matrix, has in zip(matrices, there, strict=True)]
                mean = torch.stack(logarithms).sum(dim=0) / count
                return vectorised(self._mapped(self._through(eigen_function(mean, torch.exp, torch.exp))))
            vectors = [
                vectorised(self._mapped(self._through(matrix)) * has)
                for matrix, has in zip(matrices, there, strict=True)
            ]
            return torch.cat(vectors, dim=1)

    def _covariance(
        self, tokens_BTD: Tensor, weight_BT: Tensor | None, branch: int, has: Tensor | None = None
    ) -> Tensor:
        """The reduced and shrunk covariance ``(B, C, C)`` of one branch."""
        if weight_BT is None:
            fewest = tokens_BTD.shape[1]
        else:
            count_B = (weight_BT > 0).sum(dim=1)
            count_B = count_B if has is None else count_B[has]
            fewest = int(count_B.min()) if len(count_B) else 2
        if fewest < 2:
            raise DataError(f"head spd: a covariance needs two tokens at least, a case has {fewest}")
        return shrunk(covariance(tokens_BTD @ self.maps[branch], weight_BT), self.shrinkage.sigmoid())

    def _through(self, matrix: Tensor) -> Tensor:
        """ReEig and BiMap in turn."""
        for weight in list(self.maps)[self.branches :]:
            matrix = weight.mT @ rectified(matrix) @ weight
        return matrix

    def _mapped(self, matrix: Tensor) -> Tensor:
        return logarithm(matrix) if self.config.map == "log" else newton_schulz(matrix, self.config.iterations)

    def forward(self, features: CaseFeatures) -> Tensor:
        """Outputs ``(B, O)``."""
        outputs_BO: Tensor = self.linear(self.dropout(self.norm_pooled(self.pool(features))))
        return outputs_BO
