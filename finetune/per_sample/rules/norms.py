"""Layers that normalise each sample by itself, then scale and shift its channels."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from finetune.per_sample.contributions import Dense, summed
from finetune.per_sample.rules.base import Rule, Watch, register_rule
from pretrain.backbone.stems import ChannelNorm


def watched_affine(watch: Watch, module: Any, normed: Tensor, outputs: Tensor, axes: list[int]) -> Tensor:
    """The outputs, with what weight and bias get of each group recorded.

    Args:
        watch: the recording.
        module: whose parameters are ``weight`` and ``bias``, where it has them.
        normed: what the weight is multiplied with.
        outputs: after weight and bias.
        axes: to be summed over, other than that of samples.
    """
    group_B = watch.group_of(outputs.shape[0], module)
    bias = getattr(module, "bias", None)

    def seen(gradient: Tensor) -> None:
        for parameter, change in ((module.weight, lambda: gradient * normed), (bias, lambda: gradient)):
            if parameter is not None and watch.watches(parameter):
                by_sample = change()
                by_sample = by_sample.sum(dim=axes) if axes else by_sample
                watch.add(parameter, Dense(summed(by_sample, group_B, watch.groups)))

    return watch.watch(outputs, seen)


class NormRule(Rule, abc.ABC):
    """What rules of norms share: they stand in the place of the forward pass, and make the same call."""

    @property
    def transparent(self) -> bool:
        """The same call."""
        return True

    def methods(self) -> Mapping[str, Callable[..., Any]]:
        """The forward pass."""
        return {"forward": self.forward}

    @abc.abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """As of the layer."""


@register_rule(nn.LayerNorm)
class LayerNormRule(NormRule):
    """``nn.LayerNorm`` over the last axes."""

    def forward(self, x: Tensor) -> Tensor:
        """As of the layer."""
        norm = self.module
        weight, bias = self.watch.fixed(norm.weight), self.watch.fixed(norm.bias)
        outputs = F.layer_norm(x, norm.normalized_shape, weight, bias, norm.eps)
        normed = F.layer_norm(x.detach(), norm.normalized_shape, eps=norm.eps)
        axes = list(range(1, x.ndim - len(norm.normalized_shape)))
        return watched_affine(self.watch, norm, normed, outputs, axes)


@register_rule(ChannelNorm)
class ChannelNormRule(LayerNormRule):
    """LayerNorm over the second axis."""

    def forward(self, x: Tensor) -> Tensor:
        """As of the layer."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


@register_rule(nn.RMSNorm)
class RMSNormRule(NormRule):
    """``nn.RMSNorm`` over the last axes."""

    def forward(self, x: Tensor) -> Tensor:
        """As of the layer."""
        norm = self.module
        outputs = F.rms_norm(x, norm.normalized_shape, self.watch.fixed(norm.weight), norm.eps)
        normed = F.rms_norm(x.detach(), norm.normalized_shape, None, norm.eps)
        return watched_affine(self.watch, norm, normed, outputs, list(range(1, x.ndim - len(norm.normalized_shape))))


@register_rule(nn.GroupNorm)
class GroupNormRule(NormRule):
    """``nn.GroupNorm``: channels are the second axis."""

    def forward(self, x: Tensor) -> Tensor:
        """As of the layer."""
        norm = self.module
        outputs = F.group_norm(x, norm.num_groups, self.watch.fixed(norm.weight), self.watch.fixed(norm.bias), norm.eps)
        normed = F.group_norm(x.detach(), norm.num_groups, eps=norm.eps)
        return watched_affine(self.watch, norm, normed, outputs, list(range(2, x.ndim)))
