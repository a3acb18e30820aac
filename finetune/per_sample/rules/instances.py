"""Poolings that bring the instances of all bags into one list, so that their layers see no rows of samples."""

from __future__ import annotations

from finetune.mil.log_sum_exp import GeneralisedLogSumExp
from finetune.mil.pooling import GatedAttention
from finetune.per_sample.rules.base import register_rule
from finetune.per_sample.rules.whole import Whole


@register_rule(GeneralisedLogSumExp)
class PoolingRule(Whole):
    """Bag by bag."""


@register_rule(GatedAttention)
class AttentionPoolingRule(Whole):
    """Bag by bag; its weights may be asked for without a weighted mean."""

    names = ("forward", "weights")
