"""Weights that ZeRO stage 3 has split over the ranks: whole where they are needed, and followed part by part.

DeepSpeed gathers the weights of a module while it is called, and puts a tensor without elements in their place when it
is not. ``ds_tensor`` is then what a rank holds of a weight: an equal share of its numbers, the last one padded.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn


def is_split(parameter: Tensor) -> bool:
    """Whether ZeRO stage 3 holds a parameter in parts."""
    return hasattr(parameter, "ds_tensor")


@contextlib.contextmanager
def whole(module: nn.Module) -> Iterator[None]:
    """In the block all weights below ``module`` are there on every rank, to be read; every rank enters."""
    parameters = list(module.parameters())
    if not any(is_split(parameter) for parameter in parameters):
        yield
        return
    from deepspeed.runtime.zero import GatheredParameters

    with GatheredParameters(parameters):
        yield


def register_apart(module: nn.Module) -> None:
    """Have the weights that are used outside the call of their owner gathered for the whole call of ``module``.

    Those of a module with others inside it: its methods use them, such as the queries and tags of the backbone; and
    those in a ``ParameterDict`` or ``ParameterList``, which are never called.
    """
    from deepspeed.runtime.zero import register_external_parameter

    for owner in module.modules():
        if isinstance(owner, nn.ParameterDict | nn.ParameterList) or any(True for _ in owner.children()):
            for parameter in owner.parameters(recurse=False):
                register_external_parameter(module, parameter)


def gathered(parameter: nn.Parameter) -> nn.Parameter:
    """The parameter, with its numbers in it, in the forward pass of a module that does not own it.

    DeepSpeed gathers it for the module that is being called, now and in every later call. For what only some batches
    use: whether it is needed is the same on every rank.
    """
    if is_split(parameter) and not parameter.numel():
        from deepspeed.runtime.zero import register_external_parameter
        from deepspeed.runtime.zero.parameter_offload import FWD_MODULE_STACK

        split: Any = parameter
        register_external_parameter(FWD_MODULE_STACK[-1], parameter)
        split.all_gather()
    return parameter


@torch.no_grad()
def lerp_parts(slow: Iterable[nn.Parameter], fast: Iterable[nn.Parameter], weight: float) -> None:
    """Move each parameter to ``(1 - weight) slow + weight fast``; of split ones each rank moves its own part.

    Both are split alike, so no rank needs the part of another. Small weights, which DeepSpeed keeps whole beside their
    parts, are gathered anew from them.
    """
    stale = []
    for old, new in zip(slow, fast, strict=True):
        mine, theirs = _held(old), _held(new)
        mine.lerp_(theirs.to(mine.dtype), weight)
        if is_split(old) and old.numel():
            stale.append(old)
    if stale:
        first: Any = stale[0]
        first.partition(param_list=stale)
        first.all_gather(param_list=stale)


def _held(parameter: Any) -> Tensor:
    """What this rank holds of a parameter."""
    held: Tensor = parameter.ds_tensor if is_split(parameter) else parameter
    return held
