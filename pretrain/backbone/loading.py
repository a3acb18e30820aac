"""Weights of another number of channels, of an older version, or wrapped by a training framework."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

from data_shards.support.errors import CheckpointError
from pretrain.backbone.stems import channels_as
from pretrain.misfit import misfit

_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model", "module")
_PREFIX = re.compile(r"^(module\.|_orig_mod\.|model\.)+")
_BACKBONE = "backbone."
_FIRST = ("adapter.stem.first.weight", "adapter.stem.first.depth")
# Parameters that a new network has as zeros: without them it does what it did before they were there.
_NEW_AS_ZEROS = ("adapter.proj_depth", "tags")
_NEW_SUFFIX = ".depth"
_HALVING = re.compile(r"^adapter\.stem\.stages\.\d+\.weight$")  # of ConvStem
_HEAD = "head."
# Their number of rows is that of the vocabulary, which grows; see grow_rows.
_ROWS = ("latents.collections.", "tags")


def checkpoint_filter_fn(state_dict: dict[str, Any], model: nn.Module) -> dict[str, Tensor]:
    """Timm's hook between a file and ``load_state_dict``.

    Takes the tensors out of the wrappers of training frameworks, and those of the backbone from among others; brings
    the first convolution to the model's number of channels (:func:`~pretrain.backbone.stems.channels_as`), adds as
    zeros what only volumes and studies of several images use, when the file is from a network without them; lets tables
    of a smaller vocabulary pass (:func:`~pretrain.backbone.latents.grow_rows` gives them their rows); and leaves out a
    classifier that the model does not have. timm itself looks for nothing else that does not fit when the number of
    classes differs, so this does.

    Args:
        state_dict: as it was read.
        model: what it is to be loaded into.

    Raises:
        CheckpointError: a tensor is missing, unknown or of another shape; the first is named.
    """
    source = str(getattr(model, "pretrained_cfg", {}).get("file") or "the checkpoint")
    return fitted(state_dict, model, source)


def fitted(state_dict: dict[str, Any], model: nn.Module, source: str) -> dict[str, Tensor]:
    """See :func:`checkpoint_filter_fn`.

    Args:
        state_dict: as it was read.
        model: what it is to be loaded into.
        source: what an error calls the file.

    Raises:
        CheckpointError: see :func:`checkpoint_filter_fn`.
    """
    tensors = _unwrapped(state_dict)
    own = model.state_dict()
    _check_stem(tensors, own, source)
    for name in _FIRST:
        if name in tensors and name in own and _other_channels(tensors[name].shape, own[name].shape):
            tensors[name] = channels_as(tensors[name], own[name].shape[1])
    for name, tensor in own.items():
        if name not in tensors and (name in _NEW_AS_ZEROS or name.endswith(_NEW_SUFFIX)):
            tensors[name] = torch.zeros(tensor.shape, dtype=tensor.dtype)
    if not any(name.startswith(_HEAD) for name in own):
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(_HEAD)}
    _check(tensors, own, source)
    return tensors


def _unwrapped(state_dict: dict[str, Any]) -> dict[str, Tensor]:
    while wrapper := next((name for name in _WRAPPERS if isinstance(state_dict.get(name), dict)), None):
        state_dict = state_dict[wrapper]
    tensors = {_PREFIX.sub("", name): tensor for name, tensor in state_dict.items()}
    if any(name.startswith(_BACKBONE) for name in tensors):  # beside a projector, a teacher, ...
        tensors = {
            _PREFIX.sub("", name.removeprefix(_BACKBONE)): tensor
            for name, tensor in tensors.items()
            if name.startswith(_BACKBONE)
        }
    return tensors


def _check_stem(tensors: dict[str, Tensor], own: dict[str, Tensor], source: str) -> None:
    """Say it in one line where the file is of the stem that was the default once, and the model is not."""
    halvings = sum(bool(_HALVING.match(name)) and tensor.ndim == 4 for name, tensor in tensors.items())
    if halvings and not any(_HALVING.match(name) for name in own):
        width, dim = len(tensors.get(_FIRST[0], ())), own["query"].shape[1]
        named = "" if width == max(dim >> halvings, 16) else f", stem_width={width}"
        raise CheckpointError(
            f"{source}: the file is of another model, one with the stem 'conv', which was the default once: pass "
            f"stem='conv', stride={2**halvings}{named}"
        )


def _other_channels(found: torch.Size, expected: torch.Size) -> bool:
    return len(found) == len(expected) and found[1] != expected[1] and found[1] > 0


def _check(tensors: dict[str, Tensor], own: dict[str, Tensor], source: str) -> None:
    """Whether the tensors are those of the model; the classifier is timm's to judge."""
    grown = set()
    for name in (name for name in own if name in tensors and name.startswith(_ROWS)):
        found, expected = tensors[name].shape, own[name].shape
        if found[1:] != expected[1:] or found[0] == 0:
            continue
        if found[0] > expected[0]:
            raise CheckpointError(
                f"{source}: tensor {name} is of a vocabulary of {found[0]} entries, this version knows "
                f"{expected[0]}; the file is of a newer version of Medformer"
            )
        grown.add(name)
    judged = [
        {name: tensor for name, tensor in each.items() if name not in grown and not name.startswith(_HEAD)}
        for each in (tensors, own)
    ]
    if fault := misfit(*judged):
        raise CheckpointError(f"{source}: {fault}")
