"""Some layers of the backbone are trained with the head, the others stay as they are."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from data_shards.support.documents import Document
from data_shards.support.errors import ConfigError
from finetune.strategies.base import Groups, Rates, Stage, Strategy, register_strategy
from finetune.strategies.groups import backbone_groups, layers_of, only
from pretrain.backbone import Backbone


@register_strategy("selective")
class Selective(Strategy):
    """The last layers, or those that are named by number.

    Layers are those of the backbone's ``group_matcher``: 0 is the stem with the latents and what lets them read the
    image, then come the latent layers, the last one is what is asked of them.
    """

    class Config(Document):
        """Which layers."""

        last: int = Field(2, ge=1, description="so many layers, from the output")
        layers: tuple[int, ...] | None = Field(
            None, description="these instead, counted from the input; negative ones from the output"
        )

    def stages(self, backbone: Backbone, head: Groups, rates: Rates) -> list[Stage]:
        """The head and the layers.

        Raises:
            ConfigError: there is no such layer.
        """
        layers = layers_of(backbone)
        names = [name for number in self._numbers(len(layers)) for name in layers[number]]
        groups = backbone_groups(backbone, rates.backbone, rates.weight_decay, rates.layer_decay)
        return [Stage("selected layers", head + only(groups, names, backbone))]

    def _numbers(self, count: int) -> Sequence[int]:
        if self.config.layers is None:
            return range(max(0, count - self.config.last), count)
        for number in self.config.layers:
            if not -count <= number < count:
                raise ConfigError(f"strategy selective: layer {number} of a backbone with layers 0 to {count - 1}")
        return sorted({number % count for number in self.config.layers})
