"""A network by its name in timm's registry: one of ours, or a foreign one."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm

from data_shards.support.errors import ConfigError
from pretrain.arguments import maker_of, said_of
from pretrain.backbone import Backbone
from pretrain.backbone.perceiver import Medformer
from pretrain.foreign import NetworkReference, create_foreign
from pretrain.foreign.reference import NOT_OURS


def create_network(
    name: str, model_args: Mapping[str, Any], weights: Path | None = None, cfg: Mapping[str, Any] | None = None
) -> Backbone:
    """A backbone without a classifier.

    Args:
        name: as timm knows it; of a foreign network perhaps with a tag.
        model_args: arguments it is made with.
        weights: see :func:`~pretrain.foreign.create.create_foreign`; None for fresh ones.
        cfg: likewise; ours are as they are registered.

    Raises:
        ConfigError: there is no such network, or it does not take an argument.
        CheckpointError: the weights cannot be read, or are not of this network.
    """
    if NetworkReference(name).foreign:
        return create_foreign(name, model_args, weights, cfg)
    for key, value in model_args.items():
        parameter = inspect.signature(Medformer).parameters.get(key)
        wanted = None if parameter is None else parameter.default
        if isinstance(value, bool | str) and isinstance(wanted, int | float) and not isinstance(wanted, bool):
            raise ConfigError(f"{name} cannot be made: {key}: expected a number, found {value!r}")
    try:
        backbone: Backbone = timm.create_model(name, num_classes=0, **model_args)
    except (TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        said = said_of(error, maker_of(name, error), NOT_OURS)
        raise ConfigError(f"{name} cannot be made: {said}") from None
    return backbone
