"""What an objective is, and how one is found by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from data_shards.support.documents import Document, parse
from data_shards.support.errors import ConfigError
from data_shards.support.registry import Registry
from pretrain.backbone import Backbone, Medformer
from pretrain.intensity.trained import TrainedOn
from pretrain.objectives.requests import ViewRequest
from pretrain.objectives.views import Views
from pretrain.views.config import ViewConfig


class ObjectiveConfig(Document):
    """Parameters every objective has.

    Attributes:
        weight: factor of this objective's loss in the sum.
    """

    weight: float = 1.0


class Objective(nn.Module):
    """A self-supervised loss together with the heads it trains.

    A subclass names its parameters in ``Config`` and registers itself with :func:`objective`. Reductions over the
    global batch happen inside: the mean over ranks of the returned losses is the loss of the global batch, and the
    mean of the gradients is its gradient.

    Args:
        backbone: the network to be trained; its ``embed_dim`` gives the projector its input. Not kept as a submodule.
        config: parameters.
    """

    Config: ClassVar[type[ObjectiveConfig]] = ObjectiveConfig
    name: ClassVar[str]
    """As registered."""
    can_collapse: ClassVar[bool] = True
    """Whether giving all images the same embedding may lower the loss, so that a run should be watched for it."""

    def __init__(self, backbone: Backbone, config: ObjectiveConfig) -> None:
        super().__init__()
        self.config = config

    @classmethod
    def asks(cls, config: Any) -> ViewRequest:
        """Which views it needs; two of the whole size unless it says otherwise.

        Args:
            config: its parameters.
        """
        return ViewRequest()

    @classmethod
    def check_data(cls, config: Any, shape: tuple[int, ...], views: ViewConfig, model: Backbone) -> None:
        """Refuse data that it cannot be trained on; called before training, for every dataset.

        Args:
            config: its parameters.
            shape: of each image, ``C,H,W`` or ``C,D,H,W``.
            views: augmentation of the dataset.
            model: the network, perhaps without values.

        Raises:
            ConfigError: it cannot; what was found and what is expected.
        """

    @classmethod
    def uses(cls, config: Any) -> dict[str, tuple[TrainedOn, ...]]:
        """Networks that it uses as they are: by the key that names one, the rules of the images it was trained on.

        Args:
            config: its parameters.

        Raises:
            CheckpointError: one cannot be read.
        """
        return {}

    def forward(self, backbone: Backbone, views: Views, progress: float = 0.0) -> dict[str, Tensor]:
        """``loss``, and named parts worth watching (detached).

        Args:
            backbone: the network that is trained.
            views: those that were asked for; features of them come through :class:`Views` alone.
            progress: the fraction of the run that is done, from 0 to below 1.
        """
        raise NotImplementedError

    def param_groups(self) -> list[dict[str, Any]]:
        """Groups of its parameters that are to be trained in another way than the rest.

        Each has ``params`` and whatever differs: ``weight_decay``, or ``lr_scale``, a factor of the learning rate.
        """
        return []

    def after_step(self, backbone: Backbone, progress: float) -> None:
        """Called after every optimizer step with the fraction of the run that is done, from 0 to 1.

        For moving averages. A trained weight is never edited here: what must stay normalised is so in ``forward``.
        """

    def export(self, folder: Path) -> None:
        """Called on rank 0 at the end, to keep what belongs beside the backbone; by default nothing.

        Args:
            folder: does not exist yet; an objective that keeps something makes it.
        """


OBJECTIVES: Registry[Objective] = Registry("objective", plugins="medformer.objectives", where="objectives: ")
objective = OBJECTIVES.register


def create_objective(name: str, parameters: dict[str, Any], backbone: Backbone) -> Objective:
    """The objective called ``name`` with its parameters checked.

    Raises:
        ConfigError: the name or a parameter is unknown (the nearest valid one is named).
    """
    return OBJECTIVES.named(name)(backbone, check_parameters(name, parameters))


def perceiver(backbone: Backbone, what: str) -> Medformer:
    """The network itself, for what only a Perceiver can be asked: parts of an image, and places in it.

    Raises:
        ConfigError: it is another network.
    """
    if not isinstance(backbone, Medformer):
        raise ConfigError(
            f"{what}: shows the network parts of an image and asks it for places; the networks medformer_* can be "
            "asked so, others read whole images: use another objective, or model.name: medformer_..."
        )
    return backbone


def check_parameters(name: str, parameters: dict[str, Any]) -> ObjectiveConfig:
    """The typed parameters of the objective called ``name``.

    Raises:
        ConfigError: the name or a parameter is unknown or of the wrong type.
    """
    return parse(OBJECTIVES.named(name).Config, parameters, f"objectives.{name}")


def requested(name: str, parameters: dict[str, Any]) -> ViewRequest:
    """The views that the objective called ``name`` asks for.

    Raises:
        ConfigError: the name or a parameter is unknown or of the wrong type.
    """
    return OBJECTIVES.named(name).asks(check_parameters(name, parameters))
