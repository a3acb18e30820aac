"""Batch normalisation: in training its statistics are of the batch, and no gradient is of one sample alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from data_shards.support.errors import ConfigError
from finetune.per_sample.rules.base import Rule, register_rule
from finetune.per_sample.rules.norms import watched_affine


@register_rule(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
class BatchNormRule(Rule):
    """Frozen statistics make it a scale and a shift of channels."""

    @property
    def transparent(self) -> bool:
        """The same call."""
        return True

    @classmethod
    def check(cls, module: Any, name: str) -> None:
        """Refuse statistics of a batch."""
        if module.training or module.running_mean is None:
            raise ConfigError(
                f"layer {name} ({type(module).__name__}) normalises by statistics of the batch, so that no gradient is "
                "of one sample alone; freeze it (eval mode), or use LayerNorm or GroupNorm"
            )

    def methods(self) -> Mapping[str, Callable[..., Any]]:
        """The forward pass."""
        return {"forward": self.forward}

    def forward(self, x: Tensor) -> Tensor:
        """As of the layer in evaluation mode."""
        norm = self.module
        weight, bias = (self.watch.fixed(each) for each in (norm.weight, norm.bias))
        outputs = F.batch_norm(x, norm.running_mean, norm.running_var, weight, bias, eps=norm.eps)
        normed = F.batch_norm(x.detach(), norm.running_mean, norm.running_var, eps=norm.eps)
        return watched_affine(self.watch, norm, normed, outputs, list(range(2, x.ndim)))
