"""Backbone and objectives as the one module that DeepSpeed trains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import timm
import torch
from torch import Tensor, nn

from data_shards.support.errors import ConfigError, nearest
from pretrain.backbone import Medformer
from pretrain.config import ModelConfig
from pretrain.objectives import Objective, Views, create_objective


class PretrainModule(nn.Module):
    """A backbone and the objectives it is trained by; the loss is their weighted sum on shared views.

    Args:
        backbone: the network.
        objectives: parameters of each objective by its name.
    """

    def __init__(self, backbone: Medformer, objectives: Mapping[str, dict[str, Any]]) -> None:
        super().__init__()
        self.backbone = backbone
        self.objectives = nn.ModuleDict(
            {name: create_objective(name, parameters, backbone) for name, parameters in objectives.items()}
        )

    def forward(self, views: Views) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum of the losses, and every loss and part by its name (detached)."""
        parts: dict[str, Tensor] = {}
        losses: list[Tensor] = []
        for name, objective in self._objectives():
            outcome: dict[str, Tensor] = objective(self.backbone, views)
            losses.append(objective.config.weight * outcome["loss"])
            parts |= {f"{name}/{part}": value.detach() for part, value in outcome.items()}
        return torch.stack(losses).sum(), parts

    def after_step(self, progress: float) -> None:
        """Let every objective do what it does after an optimizer step."""
        for _, objective in self._objectives():
            objective.after_step(self.backbone, progress)

    def _objectives(self) -> Iterator[tuple[str, Objective]]:
        for name, objective in self.objectives.items():
            assert isinstance(objective, Objective)
            yield name, objective

    def no_weight_decay(self) -> set[str]:
        """The backbone's exceptions, by their names in this module."""
        return {f"backbone.{name}" for name in self.backbone.no_weight_decay()}


def create_backbone(config: ModelConfig) -> Medformer:
    """The backbone that a configuration names, without a classifier.

    Raises:
        ConfigError: timm does not know the name, or the model does not take an argument.
    """
    ours = timm.list_models("medformer_*")
    if config.name not in ours:
        raise ConfigError(f"model.name: unknown model {config.name!r}{nearest(config.name, ours)}")
    try:
        backbone: Medformer = timm.create_model(config.name, num_classes=0, **config.kwargs)
    except (TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        raise ConfigError(f"model.kwargs: {config.name} cannot be made: {error}") from None
    if config.grad_checkpointing:
        backbone.set_grad_checkpointing(True)
    return backbone
