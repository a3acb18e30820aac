"""Backbone and objectives as the one module that DeepSpeed trains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data_shards.support.errors import ConfigError
from pretrain.backbone import Backbone
from pretrain.bundle import bundle_document, load_weights
from pretrain.config import ModelConfig, PretrainConfig
from pretrain.foreign import TimmBackbone, parse_network
from pretrain.foreign.batchnorm import share_statistics
from pretrain.networks import create_network
from pretrain.objectives import Objective, Views, create_objective


class PretrainModule(nn.Module):
    """A backbone and the objectives it is trained by; the loss is their weighted sum on shared views.

    Args:
        backbone: the network.
        objectives: parameters of each objective by its name.
    """

    def __init__(self, backbone: Backbone, objectives: Mapping[str, dict[str, Any]]) -> None:
        super().__init__()
        self.backbone = backbone
        self.objectives = nn.ModuleDict(
            {name: create_objective(name, parameters, backbone) for name, parameters in objectives.items()}
        )

    def forward(self, views: Views, progress: float = 0.0) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum of the losses, and every loss and part by its name (detached).

        Args:
            views: those that the objectives have asked for.
            progress: the fraction of the run that is done.
        """
        parts: dict[str, Tensor] = {}
        losses: list[Tensor] = []
        for name, objective in self._objectives():
            outcome: dict[str, Tensor] = objective(self.backbone, views, progress)
            losses.append(objective.config.weight * outcome["loss"])
            parts |= {f"{name}/{part}": value.detach() for part, value in outcome.items()}
        return torch.stack(losses).sum(), parts

    def after_step(self, progress: float) -> None:
        """Let every objective do what it does after an optimizer step."""
        for _, objective in self._objectives():
            objective.after_step(self.backbone, progress)

    @property
    def can_collapse(self) -> bool:
        """Whether one of the objectives may be served by giving all images the same embedding."""
        return any(objective.can_collapse for _, objective in self._objectives())

    def param_groups(self) -> list[dict[str, Any]]:
        """Parameters that an objective wants trained in another way than the rest."""
        return [group for _, objective in self._objectives() for group in objective.param_groups()]

    def export(self, folder: Path) -> None:
        """Let every objective keep what it wants to, in a folder of its name."""
        for name, objective in self._objectives():
            objective.export(folder / name)

    def _objectives(self) -> Iterator[tuple[str, Objective]]:
        for name, objective in self.objectives.items():
            assert isinstance(objective, Objective)
            yield name, objective

    def no_weight_decay(self) -> set[str]:
        """The backbone's exceptions, by their names in this module."""
        return {f"backbone.{name}" for name in self.backbone.no_weight_decay()}


def create_backbone(config: ModelConfig) -> Backbone:
    """The backbone that a configuration names, without a classifier.

    Raises:
        ConfigError: timm does not know the name, or the model does not take an argument, or is not that of the bundle
            that it is to go on from.
        CheckpointError: that is no bundle, or a damaged one; or the file to begin with is not of this network.
    """
    try:
        named = parse_network(config.name)
    except ConfigError as error:
        raise ConfigError(f"model.name: {error}") from None
    if named.model_args or named.weights is not None:
        raise ConfigError(
            f"model.name: {config.name}: in a document arguments belong into model.kwargs, and a file of weights into "
            "model.init_from"
        )
    start = config.init_from
    weights = start if named.foreign and start is not None and not start.is_dir() else None
    try:
        backbone = create_network(named.name, config.kwargs, weights)
    except ConfigError as error:
        raise ConfigError(f"model.kwargs: {error}") from None
    if start is not None and weights is None:
        _go_on_from(start, config, backbone)
    if config.grad_checkpointing:
        backbone.set_grad_checkpointing(True)
    if named.foreign:
        share_statistics(backbone)
    return backbone


def without_values(config: PretrainConfig) -> PretrainModule:
    """The network and the objectives of a run as shapes alone; to be called anywhere.

    Raises:
        ConfigError: one of them cannot be made.
        CheckpointError: the network that it is to go on from is another one, or damaged.
    """
    try:
        with torch.device("meta"):
            return PretrainModule(create_backbone(config.model), config.objectives)
    except (TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        raise ConfigError(f"objectives: {', '.join(config.objectives)} cannot be made: {error}") from None


def _go_on_from(folder: Path, config: ModelConfig, backbone: Backbone) -> None:
    found = bundle_document(folder)
    theirs = (found.get("architecture"), found.get("model_args", {}))
    if isinstance(backbone, TimmBackbone):
        ours = (backbone.architecture, backbone.model_args)
    else:
        named = {name: value for name, value in config.kwargs.items() if name != "num_classes"}
        ours = (config.name, _with_embedding(named) | backbone.stem_args)
        theirs = (theirs[0], _with_embedding(theirs[1]))
    if theirs != ours:
        raise ConfigError(
            f"model.init_from: {folder} holds {theirs[0]} with {theirs[1]}, model.name and model.kwargs say {ours[0]} "
            f"with {ours[1]}; they must agree"
        )
    if not any(parameter.is_meta for parameter in backbone.parameters()):
        load_weights(backbone, folder / "model.safetensors")


def _with_embedding(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a Medformer that say how it makes its embedding: bundles from before this could be chosen do not.

    None is left out, as timm leaves it out.
    """
    return {"embedding": "latents"} | {name: value for name, value in arguments.items() if value is not None}
