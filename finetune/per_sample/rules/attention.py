"""torch's own multi-head attention, which uses the weights of layers below it without calling them.

The backbone's attention needs no rule: it is made of linear layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from data_shards.support.errors import ConfigError
from finetune.per_sample.rules.base import register_rule
from finetune.per_sample.rules.whole import Whole


@register_rule(nn.MultiheadAttention)
class MultiheadAttentionRule(Whole):
    """Group by group; with samples along the first axis."""

    @classmethod
    def check(cls, module: Any, name: str) -> None:
        """Refuse samples along the second axis, and what is the same for all of a batch."""
        if not module.batch_first or module.bias_k is not None:
            raise ConfigError(
                f"layer {name} (MultiheadAttention): gradients by sample need batch_first=True and no add_bias_kv"
            )

    def methods(self) -> Mapping[str, Callable[..., Any]]:
        """The forward pass, without the weights of the attention."""
        by_group = super().methods()["forward"]

        def forward(query: Tensor, key: Tensor, value: Tensor, **named: Any) -> tuple[Tensor, None]:
            mask = named.get("attn_mask")
            if mask is not None and mask.ndim == 3:
                raise ConfigError("MultiheadAttention: gradients by sample are not supported with a mask for each head")
            named["need_weights"] = False
            return by_group(query, key, value, **named), None

        return {"forward": forward}

    def _by_group(self, name: str) -> Callable[..., Any]:
        original = self.module.forward
        self.module.forward = lambda *given, **named: original(*given, **named)[0]
        try:
            return super()._by_group(name)
        finally:
            del self.module.forward
