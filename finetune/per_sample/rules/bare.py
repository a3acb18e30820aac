"""Modules with parameters of their own that meet the batch in :mod:`pretrain.backbone.bare`, whose rules see them."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from finetune.heads.attention import AttentionHead
from finetune.per_sample.rules.base import Rule, register_rule
from finetune.strategies.low_rank import LowRankLinear
from pretrain.backbone import Medformer
from pretrain.backbone.adapters import ImageAdapter
from pretrain.backbone.latents import LatentArray


@register_rule(Medformer, LatentArray, ImageAdapter, nn.ParameterDict, nn.ParameterList, LowRankLinear, AttentionHead)
class BareRule(Rule):
    """Nothing is to be done here. A use that no rule sees is found after the backward pass, and refused."""

    sees_weights: ClassVar[bool] = False

    @property
    def transparent(self) -> bool:
        """Nothing is changed."""
        return True
