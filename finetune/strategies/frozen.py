"""The head alone is trained, on features that are computed once."""

from __future__ import annotations

from typing import ClassVar

from finetune.strategies.base import Groups, Rates, Stage, Strategy, register_strategy
from pretrain.backbone import Backbone


@register_strategy("frozen")
class Frozen(Strategy):
    """No weight of the backbone moves."""

    trains_backbone: ClassVar[bool] = False

    def stages(self, backbone: Backbone, head: Groups, rates: Rates) -> list[Stage]:
        """The head."""
        return [Stage("head", head)]
