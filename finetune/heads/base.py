"""What a head is, and where heads are found by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from data_shards.support.documents import Document
from data_shards.support.registry import Registry
from data_shards.vocabulary import Task
from finetune.heads.features import CaseFeatures
from finetune.heads.instances import InstanceKind, Instances


class Head(nn.Module):
    """From the features of cases to outputs.

    Args of every head: ``dim``, channels of the features; ``outputs``, how many numbers it gives per case; ``config``,
    its options.

    Attributes:
        Config: the options.
        config: those it was made with.
        name: as registered.
    """

    name: ClassVar[str]

    class Config(Document):
        """No options."""

    def __init__(self, dim: int, outputs: int, config: Any) -> None:
        super().__init__()
        self.dim, self.outputs, self.config = dim, outputs, config

    @classmethod
    def check(cls, config: Any, task: Task, *, one_grid: bool) -> None:
        """Refuse what the head cannot learn from, before anything is computed.

        Args:
            config: of the head.
            task: how labels are to be read; unknown where that is not known yet.
            one_grid: whether each study has one image, all of one size.

        Raises:
            ConfigError: says what it is for.
        """

    @property
    def needs_tokens(self) -> bool:
        """Whether it reads tokens, as it was configured; a head of the embedding alone needs far less memory."""
        return True

    def forward(self, features: CaseFeatures) -> Tensor:
        """Outputs ``(B, O)``."""
        raise NotImplementedError

    @property
    def instance_kind(self) -> InstanceKind | None:
        """Of what :meth:`instances` tells; None where the head says nothing of parts of a case."""
        return None

    def instances(self, features: CaseFeatures) -> Instances | None:
        """What it says of each token or each study; None where ``instance_kind`` is."""
        del features
        return None

    @property
    def penalises(self) -> bool:
        """Whether :meth:`penalty` gives anything, as the head was configured."""
        return False

    @property
    def last_layer(self) -> nn.Linear | None:
        """The linear layer whose outputs are nearest to those of the head; None where there is none."""
        layers = [module for module in self.modules() if isinstance(module, nn.Linear)]
        return layers[-1] if layers else None

    @property
    def compares(self) -> bool:
        """Whether what :meth:`penalty` adds to a case depends on the others of its batch."""
        return False

    def penalty(self, features: CaseFeatures, values: Tensor) -> Tensor | None:
        """What is added to the loss of each case in training, ``(B,)``; None where ``penalises`` is false.

        Args:
            features: of the cases.
            values: their labels, as the loss of the target takes them.
        """
        del features, values
        return None

    def param_groups(self) -> list[dict[str, Any]]:
        """Optimizer groups, each with ``params``, and ``lr_scale`` and ``weight_decay`` where they differ.

        Weight matrices decay, vectors do not.
        """
        return [
            {"params": [parameter for parameter in self.parameters() if parameter.ndim > 1]},
            {"params": [parameter for parameter in self.parameters() if parameter.ndim <= 1], "weight_decay": 0.0},
        ]


HEADS: Registry[Head] = Registry("head")
register_head = HEADS.register


def check_head(name: str, options: Mapping[str, Any] | None, task: Task, *, one_grid: bool = True) -> None:
    """Refuse a head that cannot learn from such cases, see :meth:`Head.check`.

    Raises:
        ConfigError: says what it is for.
    """
    HEADS.named(name).check(HEADS.config(name, options), task, one_grid=one_grid)


def create_head(name: str, dim: int, outputs: int, options: Mapping[str, Any] | None = None) -> Head:
    """A new head.

    Args:
        name: as registered.
        dim: channels of the features.
        outputs: numbers per case.
        options: of its ``Config``.

    Raises:
        ConfigError: there is no such head or option; the nearest name is given.
    """
    return HEADS.named(name)(dim, outputs, HEADS.config(name, options))
