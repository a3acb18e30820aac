"""Optimizer groups of a backbone, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence

from timm.models import group_parameters
from timm.optim import param_groups_layer_decay

from finetune.strategies.base import Groups
from pretrain.backbone import Medformer


def backbone_groups(backbone: Medformer, rate: float, weight_decay: float, layer_decay: float) -> Groups:
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


def layers_of(backbone: Medformer) -> list[list[str]]:
    """Names of the parameters of each layer, from the input to the output, by the backbone's ``group_matcher``."""
    groups = group_parameters(backbone, backbone.group_matcher(), reverse=False)
    return [groups[number] for number in sorted(groups)]


def only(groups: Groups, names: Sequence[str], backbone: Medformer) -> Groups:
    """The groups with the parameters of these names alone."""
    parameters = dict(backbone.named_parameters())
    wanted = {id(parameters[name]) for name in names if name in parameters}
    kept = [{**group, "params": [each for each in group["params"] if id(each) in wanted]} for group in groups]
    return [group for group in kept if group["params"]]
