"""What a strategy is: which weights move, when and how fast; and where strategies are found by name."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from data_shards.support.documents import Document
from data_shards.support.registry import Registry
from pretrain.backbone import Backbone

Groups = list[dict[str, Any]]
"""Optimizer groups: ``params``, ``lr`` and ``weight_decay``."""


@dataclass(frozen=True)
class Rates:
    """Peak learning rates and decays.

    Attributes:
        head: of the head.
        backbone: of the last layer of the backbone.
        layer_decay: factor of the rate from one layer of the backbone to the one before it.
        weight_decay: of weight matrices.
    """

    head: float
    backbone: float
    layer_decay: float
    weight_decay: float


@dataclass(frozen=True)
class Stage:
    """A part of a fit: what moves in it; everything else keeps its bits.

    Attributes:
        name: for the record.
        groups: optimizer groups with their peak rates.
        share: of the steps of the fit.
    """

    name: str
    groups: Groups
    share: float = 1.0

    @property
    def parameters(self) -> list[nn.Parameter]:
        """What moves."""
        return [parameter for group in self.groups for parameter in group["params"]]


class Strategy(abc.ABC):
    """How a backbone is adapted together with a head.

    Args:
        config: the strategy's own options.

    Attributes:
        Config: the options.
        trains_backbone: whether a weight of the backbone moves at all; else features are computed once.
        head_first: whether the head is first fitted to the frozen backbone, as the strategy ``frozen`` does it.
    """

    class Config(Document):
        """No options."""

    name: ClassVar[str]
    trains_backbone: ClassVar[bool] = True
    head_first: ClassVar[bool] = False

    def __init__(self, config: Any) -> None:
        self.config = config

    def prepare(self, backbone: Backbone) -> None:  # noqa: B027 (most have nothing to prepare)
        """Change the backbone before it is trained, such as by adding weights."""

    @abc.abstractmethod
    def stages(self, backbone: Backbone, head: Groups, rates: Rates) -> Sequence[Stage]:
        """What moves, stage by stage.

        Args:
            backbone: as :meth:`prepare` left it.
            head: groups of the head and of what follows it, with their rates.
            rates: peak rates.
        """

    def finish(self, backbone: Backbone) -> None:  # noqa: B027 (or to undo)
        """Give the backbone its own shape back after training: it is saved as any other."""


STRATEGIES: Registry[Strategy] = Registry("strategy")
register_strategy = STRATEGIES.register


def create_strategy(name: str, options: Mapping[str, Any] | None = None) -> Strategy:
    """The strategy called ``name``.

    Raises:
        ConfigError: there is no such strategy or option; the nearest name is given.
    """
    return STRATEGIES.named(name)(STRATEGIES.config(name, options))
