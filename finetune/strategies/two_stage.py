"""The head first, on the frozen backbone; then everything.

A head that begins at random pulls the features about before it says anything; one that is fitted first does not (Kumar
et al., Fine-tuning can distort pretrained features and underperform out-of-distribution, ICLR 2022, section 3.2).
"""

from __future__ import annotations

from typing import ClassVar

from finetune.strategies.base import register_strategy
from finetune.strategies.full import Full


@register_strategy("two_stage")
class TwoStage(Full):
    """Probe, then fine-tune."""

    head_first: ClassVar[bool] = True
