"""Making a foreign network, with fresh weights or with those of a local file."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import split_model_name_tag
from torch import Tensor, nn

from data_shards.support.errors import CheckpointError, ConfigError
from pretrain.arguments import maker_of, said_of
from pretrain.foreign.reference import NOT_OURS, check_arguments, checked_name
from pretrain.foreign.shapes import Shapes
from pretrain.foreign.timm_backbone import TimmBackbone, in_chans_of

SUFFIX = ".safetensors"
_ANY_SIZE = {"dynamic_img_size": True, "dynamic_img_pad": True}
"""What lets a vision transformer of timm take any size: its position table is resampled, odd edges are padded."""
_NOWHERE_ELSE = {"url": "", "file": None, "hf_hub_id": None, "hf_hub_filename": None, "source": ""}
"""Where timm would look when it is given no tensors."""


def create_foreign(
    name: str, model_args: Mapping[str, Any], weights: Path | None = None, cfg: Mapping[str, Any] | None = None
) -> TimmBackbone:
    """A network of timm's registry as a backbone, without its classifier.

    A transformer that can take any size does, unless ``dynamic_img_size`` or ``dynamic_img_pad`` is among the
    arguments. Nothing is fetched from anywhere.

    Args:
        name: as timm knows it, perhaps with a tag.
        model_args: arguments it is made with.
        weights: local safetensors file of weights for this network. timm converts them to another number of channels,
            image size or patch size; a classifier in them is left out. On the ``meta`` device they are not read.
        cfg: timm's ``pretrained_cfg`` of the network, of which ``mean`` and ``std`` are taken; None for the registered.

    Raises:
        ConfigError: there is no such model (the nearest are named), or it does not take an argument.
        CheckpointError: the weights are not a safetensors file, or not of this network.
    """
    checked_name(name)
    check_arguments(name, model_args)
    tensors = None
    if weights is not None and torch.get_default_device().type != "meta":
        tensors = _read(weights)
    values = {key: cfg[key] for key in ("mean", "std") if cfg and key in cfg}
    model, args = _fresh(name, model_args, values)
    if tensors is not None:
        model = _loaded(name, args, tensors, values, str(weights))
    architecture, _ = split_model_name_tag(name)
    twin: Any = copy.deepcopy(model).to("meta")
    nominal = _nominal(args, twin.pretrained_cfg["input_size"])
    shapes = Shapes(architecture, twin, nominal, in_chans_of(model), int(twin.num_features))
    return TimmBackbone(model, architecture, args, shapes)


def _fresh(name: str, model_args: Mapping[str, Any], values: dict[str, Any]) -> tuple[nn.Module, dict[str, Any]]:
    """The model with fresh weights, and the arguments it was made with."""
    asked = bool(_ANY_SIZE.keys() & model_args.keys())
    reason: Exception | None = None
    for added in ({},) if asked else (_ANY_SIZE, {}):
        args = {**model_args, **added}
        try:
            return timm.create_model(name, pretrained_cfg_overlay=values, num_classes=0, **args), args
        except TypeError as error:
            reason = error  # perhaps it knows nothing of dynamic sizes
        except (ValueError, ArithmeticError, RuntimeError, AssertionError, KeyError) as error:
            reason = error
            break
    assert reason is not None
    said = said_of(reason, maker_of(name, reason), NOT_OURS)
    raise ConfigError(f"{name} cannot be made with {dict(model_args)}: {said}")


def _loaded(
    name: str, args: Mapping[str, Any], tensors: dict[str, Tensor], values: Mapping[str, Any], source: str
) -> nn.Module:
    """The model with weights, which fit strictly once timm has converted them."""
    cfg = timm.get_pretrained_cfg(name)
    heads = (cfg.classifier if cfg is not None else None) or ()
    heads = (heads,) if isinstance(heads, str) else heads
    dropped = {f"{head}.{kind}" for head in heads for kind in ("weight", "bias")}
    kept = {key: tensor for key, tensor in tensors.items() if key not in dropped}
    # With as many classes as the model has, none, timm loads strictly what its own conversion gives.
    overlay = {**values, "state_dict": kept, "num_classes": 0, "label_offset": 0, "custom_load": False, **_NOWHERE_ELSE}
    if not kept:
        raise CheckpointError(f"{source}: not the weights of {name}: there is no tensor in it")
    try:
        model = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=0, **args)
    except (RuntimeError, ValueError, KeyError, AssertionError, AttributeError) as error:
        raise CheckpointError(f"{source}: not the weights of {name}: {_first_fault(error)}") from None
    model.pretrained_cfg.pop("state_dict", None)  # it would be held, and copied, with the model
    return model


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix != SUFFIX:
        raise CheckpointError(
            f"{path}: weights are read from {SUFFIX} files alone; a pickle can run any program when it is opened. "
            "Convert it where you trust it: safetensors.torch.save_file(torch.load(FILE, weights_only=True), OUT)"
        )
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file: {error}") from None
    return tensors


def _first_fault(error: Exception) -> str:
    """The first line of what torch says of tensors that do not fit."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    fault = next((line for line in lines[1:]), lines[0])
    return fault if len(fault) <= 200 else f"{fault[:200]} ..."


def _nominal(args: Mapping[str, Any], input_size: tuple[int, ...]) -> tuple[int, ...]:
    axes = len(input_size) - 1
    size = args.get("img_size", input_size[1:])
    return tuple(size) if isinstance(size, list | tuple) else (int(size),) * axes
