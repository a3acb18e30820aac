"""Transfer strategies: which weights move, and how fast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from timm.optim import param_groups_layer_decay

from data_shards.support.errors import ConfigError, nearest
from finetune.heads import Head
from pretrain.backbone import Medformer


@dataclass(frozen=True)
class Strategy:
    """How a backbone is adapted.

    Attributes:
        trains_backbone: whether the weights of the backbone move at all.
    """

    trains_backbone: bool


STRATEGIES: Mapping[str, Strategy] = {
    "frozen": Strategy(trains_backbone=False),
    "full": Strategy(trains_backbone=True),
}


def strategy_named(name: str) -> Strategy:
    """The strategy called ``name``.

    Raises:
        ConfigError: there is none; the nearest name is given.
    """
    if name not in STRATEGIES:
        raise ConfigError(f"unknown strategy {name!r}{nearest(name, STRATEGIES)}")
    return STRATEGIES[name]


def head_groups(head: Head, rate: float, weight_decay: float) -> list[dict[str, Any]]:
    """Optimizer groups of the head: weight matrices decay, vectors do not."""
    matrices = [parameter for parameter in head.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in head.parameters() if parameter.ndim <= 1]
    return [
        {"params": matrices, "lr": rate, "weight_decay": weight_decay},
        {"params": vectors, "lr": rate, "weight_decay": 0.0},
    ]


def backbone_groups(backbone: Medformer, rate: float, weight_decay: float, layer_decay: float) -> list[dict[str, Any]]:
    """Optimizer groups of the backbone: the deeper towards the input, the slower.

    Layer ``l`` of ``n`` learns at ``rate * layer_decay ** (n - l)`` (Clark et al., ELECTRA, 2020).

    Args:
        backbone: its ``group_matcher`` says which layers there are.
        rate: learning rate of the last layer.
        weight_decay: of matrices; vectors and what ``no_weight_decay`` names are exempt.
        layer_decay: 1 gives all layers the same rate.
    """
    groups = param_groups_layer_decay(
        backbone,
        weight_decay=weight_decay,
        no_weight_decay_list=backbone.no_weight_decay(),
        layer_decay=layer_decay,
    )
    return [
        {"params": group["params"], "lr": rate * group["lr_scale"], "weight_decay": group["weight_decay"]}
        for group in groups
    ]
