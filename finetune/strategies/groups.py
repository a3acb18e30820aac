"""Optimizer groups of a backbone, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from timm.models import group_parameters
from timm.optim import param_groups_layer_decay

from data_shards.support.errors import ConfigError
from finetune.strategies.base import Groups
from pretrain.backbone import Backbone


def backbone_groups(backbone: Backbone, rate: float, weight_decay: float, layer_decay: float) -> Groups:
    """Optimizer groups of the backbone: the deeper towards the input, the slower.

    Layer ``l`` of ``n`` learns at ``rate * layer_decay ** (n - l)`` (Clark et al., ELECTRA, 2020).

    Args:
        backbone: its ``group_matcher`` says which layers there are.
        rate: learning rate of the last layer.
        weight_decay: of matrices; vectors and what ``no_weight_decay`` names are exempt.
        layer_decay: 1 gives all layers the same rate.
    """
    network: Any = backbone.network
    groups = param_groups_layer_decay(
        network,
        weight_decay=weight_decay,
        no_weight_decay_list=network.no_weight_decay() if hasattr(network, "no_weight_decay") else (),
        layer_decay=layer_decay,
    )
    return [
        {"params": group["params"], "lr": rate * group["lr_scale"], "weight_decay": group["weight_decay"]}
        for group in groups
    ]


def layers_of(backbone: Backbone) -> list[list[str]]:
    """Names of the parameters of each layer, from the input to the output, by the network's ``group_matcher``.

    Raises:
        ConfigError: it has none.
    """
    network: Any = backbone.network
    if not hasattr(network, "group_matcher"):
        raise ConfigError(f"{type(network).__name__} does not say which layers it has; another strategy is needed")
    groups = group_parameters(network, network.group_matcher(), reverse=False)
    return [groups[number] for number in sorted(groups)]


def only(groups: Groups, names: Sequence[str], backbone: Backbone) -> Groups:
    """The groups with the parameters of these names alone."""
    parameters = dict(backbone.network.named_parameters())
    wanted = {id(parameters[name]) for name in names if name in parameters}
    kept = [{**group, "params": [each for each in group["params"] if id(each) in wanted]} for group in groups]
    return [group for group in kept if group["params"]]
