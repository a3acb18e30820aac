"""Linear layers, with any number of axes between samples and channels, and products with a weight that is handed in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from finetune.per_sample.contributions import Dense, Outer, summed
from finetune.per_sample.rules.base import Rule, Watch, register_rule
from pretrain.backbone.bare import Product


def watched_product(watch: Watch, module: nn.Module, x: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
    """``F.linear`` whose gradients by sample are recorded.

    A row is a token of a sample; what tokens of one sample, and samples of one group, add is summed.
    """
    group_B = watch.group_of(x.shape[0], module)
    kept = watch.keep(x) if watch.watches(weight_OI) else None

    def seen(gradient: Tensor) -> None:
        rows = gradient.flatten(0, -2)
        group_R = group_B.repeat_interleave(len(rows) // len(group_B))
        if kept is not None:
            watch.add(weight_OI, Outer(kept().flatten(0, -2), rows, group_R))
        if watch.watches(bias_O):
            watch.add(bias_O, Dense(summed(rows, group_R, watch.groups)))

    return watch.watch(F.linear(x, watch.fixed(weight_OI), watch.fixed(bias_O)), seen)


@register_rule(nn.Linear)
class LinearRule(Rule):
    """``nn.Linear``."""

    @property
    def transparent(self) -> bool:
        """The same call."""
        return True

    def methods(self) -> Mapping[str, Callable[..., Any]]:
        """The forward pass."""
        return {"forward": lambda x: watched_product(self.watch, self.module, x, self.module.weight, self.module.bias)}


@register_rule(Product)
class ProductRule(Rule):
    """The weight is known by who it is."""

    is_handed_weights: ClassVar[bool] = True

    @property
    def transparent(self) -> bool:
        """The same call."""
        return True

    def methods(self) -> Mapping[str, Callable[..., Any]]:
        """The forward pass; of a weight that nobody asks for, the ordinary one."""

        def forward(x: Tensor, weight_OI: Tensor) -> Tensor:
            if not self.watch.watches(weight_OI):
                return F.linear(x, weight_OI)
            return watched_product(self.watch, self.module, x, weight_OI, None)

        return {"forward": forward}
