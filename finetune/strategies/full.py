"""The whole network is trained, its layers the slower the nearer they are to the input."""

from __future__ import annotations

from finetune.strategies.base import Groups, Rates, Stage, Strategy, register_strategy
from finetune.strategies.groups import backbone_groups
from pretrain.backbone import Backbone


@register_strategy("full")
class Full(Strategy):
    """Layer-wise decay of the rate (Clark et al., ELECTRA, ICLR 2020, appendix A)."""

    def stages(self, backbone: Backbone, head: Groups, rates: Rates) -> list[Stage]:
        """Everything at once."""
        return [Stage("all", head + backbone_groups(backbone, rates.backbone, rates.weight_decay, rates.layer_decay))]
