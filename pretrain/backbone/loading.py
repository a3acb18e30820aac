"""Weights of another number of channels, of an older version, or wrapped by a training framework."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pretrain.backbone.stems import channels_as

_WRAPPERS = ("state_dict", "model", "module")
_PREFIXES = ("module.", "_orig_mod.", "backbone.")
# Parameters that a new network has as zeros: without them it does what it did before they were there.
_NEW_AS_ZEROS = ("adapter.proj_depth", "tags")
_NEW_SUFFIX = ".depth"


def checkpoint_filter_fn(state_dict: dict[str, Any], model: nn.Module) -> dict[str, Tensor]:
    """Timm's hook between a file and ``load_state_dict``.

    Takes the tensors out of the wrappers of training frameworks, brings the first convolution to the model's number of
    channels (:func:`~pretrain.backbone.stems.channels_as`), and adds as zeros what only volumes and studies of several
    images use, when the file is from a network without them.

    Args:
        state_dict: as it was read.
        model: what it is to be loaded into.
    """
    for wrapper in _WRAPPERS:
        inner = state_dict.get(wrapper)
        if isinstance(inner, dict):
            state_dict = inner
    tensors = {_plain(name): tensor for name, tensor in state_dict.items()}
    own = model.state_dict()
    for name in ("adapter.stem.first.weight", "adapter.stem.first.depth"):
        if name in tensors and tensors[name].shape[1] != own[name].shape[1]:
            tensors[name] = channels_as(tensors[name], own[name].shape[1])
    for name, tensor in own.items():
        if name not in tensors and (name in _NEW_AS_ZEROS or name.endswith(_NEW_SUFFIX)):
            tensors[name] = torch.zeros_like(tensor)
    return tensors


def _plain(name: str) -> str:
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name
