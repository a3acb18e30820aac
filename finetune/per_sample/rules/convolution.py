"""Convolutions of any groups, stride, padding and dilation, also transposed ones, and those of planes and volumes."""

from __future__ import annotations

from torch import nn

from finetune.per_sample.rules.base import register_rule
from finetune.per_sample.rules.whole import Whole
from pretrain.backbone.stems import InflatedConv


@register_rule(
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    InflatedConv,
)
class ConvolutionRule(Whole):
    """Kernels are few numbers beside the activations, and unfolding these takes their size times that of a kernel."""
