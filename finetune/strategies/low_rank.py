"""Low-rank changes of the weight matrices are trained with the head (Hu et al., LoRA, ICLR 2022, section 4.1).

``W x`` becomes ``W x + (alpha / rank) B A x`` with ``A`` drawn and ``B`` zero, so training begins at the pretrained
network. At the end the product is added to ``W``: what is saved is an ordinary backbone.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from data_shards.support.documents import Document
from data_shards.support.errors import ConfigError
from finetune.strategies.base import Groups, Rates, Stage, Strategy, register_strategy
from finetune.strategies.low_rank_weights import LowRankChange, change_weights, merge_changes
from pretrain.backbone import Backbone, Medformer
from pretrain.backbone.attention import Attention, Mlp
from pretrain.backbone.bare import Product


class LowRankLinear(nn.Module):
    """A linear layer that stays as it is, and a change of low rank.

    Args:
        base: the layer.
        rank: of the change; 0 for none.
        alpha: the change is ``alpha / rank`` times the product.
        dropout: share of the inputs of the change that is dropped in a training step.
    """

    def __init__(self, base: nn.Linear, rank: int, alpha: float, dropout: float) -> None:
        super().__init__()
        self.base = base
        self.scale = alpha / rank if rank else 0.0
        self.down_RI = nn.Parameter(base.weight.new_empty(rank, base.in_features))
        self.up_OR = nn.Parameter(base.weight.new_zeros(base.out_features, rank))
        self.dropout = nn.Dropout(dropout)
        self.product = Product()
        if rank:
            nn.init.kaiming_uniform_(self.down_RI, a=math.sqrt(5))

    def forward(self, inputs: Tensor) -> Tensor:
        """As the layer, with the change added."""
        outputs: Tensor = self.base(inputs)
        if not self.scale:
            return outputs
        change: Tensor = self.product(self.product(self.dropout(inputs), self.down_RI), self.up_OR)
        return outputs + self.scale * change

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The layer with the change in its weights."""
        self.base.weight += (self.scale * (self.up_OR.double() @ self.down_RI.double())).to(self.base.weight)
        return self.base


@register_strategy("low_rank")
class LowRank(Strategy):
    """Of every weight matrix of attention and MLP, or of one kind of them; in other networks also of convolutions."""

    class Config(Document):
        """How large the changes are."""

        rank: int = Field(4, ge=0, description="of each change; 0 trains the head alone")
        alpha: float | None = Field(None, gt=0, description="strength; default twice the rank")
        dropout: float = Field(0.0, ge=0, lt=1, description="share of the inputs that is dropped in a training step")
        layers: Literal["all", "attention", "mlp"] = Field("all", description="whose matrices are changed")
        rate: float = Field(1.0, gt=0, description="learning rate of the changes as a share of that of the head")

    def prepare(self, backbone: Backbone) -> None:
        """Wrap the matrices; the network gives what it gave.

        Raises:
            ConfigError: the rank is larger than a matrix can have, or a foreign network has no such layers.
        """
        config = self.config
        if not isinstance(backbone, Medformer):
            change_weights(backbone.network, config.layers, config.rank, config.alpha, config.dropout)
            return
        kinds: tuple[type[nn.Module], ...] = {"all": (Attention, Mlp), "attention": (Attention,), "mlp": (Mlp,)}[
            config.layers
        ]
        for module in list(backbone.modules()):
            if isinstance(module, kinds):
                for name, layer in list(module.named_children()):
                    if isinstance(layer, nn.Linear):
                        most = min(layer.in_features, layer.out_features)
                        if config.rank > most:
                            raise ConfigError(
                                f"strategy low_rank: rank {config.rank}; a matrix {tuple(layer.weight.shape)} of the "
                                f"backbone has rank {most} at most"
                            )
                        alpha = 2.0 * config.rank if config.alpha is None else config.alpha
                        setattr(module, name, LowRankLinear(layer, config.rank, alpha, config.dropout))

    def stages(self, backbone: Backbone, head: Groups, rates: Rates) -> list[Stage]:
        """The head and the changes."""
        changes: list[Any] = [
            parameter
            for module in backbone.modules()
            if isinstance(module, LowRankLinear | LowRankChange)
            for parameter in (module.down_RI, module.up_OR)
            if parameter.numel()
        ]
        group = {"params": changes, "lr": rates.head * self.config.rate, "weight_decay": 0.0}
        return [Stage("low-rank changes", head + ([group] if changes else []))]

    def finish(self, backbone: Backbone) -> None:
        """Add the changes to the matrices."""
        if not isinstance(backbone, Medformer):
            merge_changes(backbone.network)
            return
        for module in list(backbone.modules()):
            for name, layer in list(module.named_children()):
                if isinstance(layer, LowRankLinear):
                    setattr(module, name, layer.merged())
