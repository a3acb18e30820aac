"""Tables of which each sample takes rows, and parameters that every sample has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data_shards.support.errors import ConfigError
from finetune.per_sample.contributions import Dense, summed
from finetune.per_sample.rules.base import Rule, Watch, register_rule
from pretrain.backbone.bare import Repeated, Rows


def watched_rows(
    watch: Watch, module: nn.Module, table: Tensor, ids_B: Tensor, outputs: Tensor, padding: int | None = None
) -> Tensor:
    """Rows of a table that were looked up, ``ids_B`` of any number of axes; those of ``padding`` get no gradient."""
    group_B = watch.group_of(ids_B.shape[0], module)

    def seen(gradient: Tensor) -> None:
        ids_R = ids_B.flatten()
        group_R = group_B.repeat_interleave(len(ids_R) // len(group_B))
        by_row = gradient.reshape(len(ids_R), *table.shape[1:])
        if padding is not None:
            there = ids_R != padding
            ids_R, group_R, by_row = ids_R[there], group_R[there], by_row[there]
        made = gradient.new_zeros(watch.groups, *table.shape)
        watch.add(table, Dense(made.index_put_((group_R, ids_R), by_row, accumulate=True)))

    return watch.watch(outputs, seen)


@register_rule(nn.Embedding)
class EmbeddingRule(Rule):
    """``nn.Embedding``."""

    @property
    def transparent(self) -> bool:
        """The same call."""
        return True

    @classmethod
    def check(cls, module: Any, name: str) -> None:
        """Refuse what mixes samples or changes the table."""
        if module.max_norm is not None or module.scale_grad_by_freq:
            raise ConfigError(
                f"layer {name} (Embedding): gradients by sample are not supported with max_norm or scale_grad_by_freq"
            )

    def methods(self) -> Mapping[str, Callable[..., Any]]:
        """The forward pass."""

        def forward(ids_B: Tensor) -> Tensor:
            table, padding = self.module.weight, self.module.padding_idx
            outputs = F.embedding(ids_B, self.watch.fixed(table), padding)
            return watched_rows(self.watch, self.module, table, ids_B, outputs, padding)

        return {"forward": forward}


@register_rule(Rows)
class RowsRule(Rule):
    """Rows of a table that is handed in."""

    is_handed_weights: ClassVar[bool] = True

    @property
    def transparent(self) -> bool:
        """The same call."""
        return True

    def methods(self) -> Mapping[str, Callable[..., Any]]:
        """The forward pass; of a table that nobody asks for, the ordinary one."""

        def forward(table: Tensor, ids_B: Tensor) -> Tensor:
            if not self.watch.watches(table):
                return table[ids_B]
            ids_B = torch.where(ids_B < 0, ids_B + len(table), ids_B)
            return watched_rows(self.watch, self.module, table, ids_B, self.watch.fixed(table)[ids_B])

        return {"forward": forward}


@register_rule(Repeated)
class RepeatedRule(Rule):
    """A parameter that every sample of the batch has."""

    is_handed_weights: ClassVar[bool] = True

    @property
    def transparent(self) -> bool:
        """The same call."""
        return True

    def methods(self) -> Mapping[str, Callable[..., Any]]:
        """The forward pass; of what nobody asks for, the ordinary one."""

        def forward(tensor: Tensor, count: int) -> Tensor:
            watch, outputs = self.watch, self.watch.fixed(tensor).expand(count, *tensor.shape)
            if not watch.watches(tensor):
                return tensor.expand(count, *tensor.shape)
            group_B = watch.group_of(count, self.module)
            return watch.watch(outputs, lambda grad: watch.add(tensor, Dense(summed(grad, group_B, watch.groups))))

        return {"forward": forward}
