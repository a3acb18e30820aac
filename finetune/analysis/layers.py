"""The layers of a network in the order in which a forward pass comes to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from data_shards.support.errors import ConfigError
from finetune.analysis.state import PassState

Block = tuple[nn.Parameter, ...]
"""Parameters that are updated together."""


def layers_in_order(module: nn.Module, run: Callable[[], Any]) -> list[Block]:
    """The parameters that each layer has of its own, layers in the order of their first use.

    A layer is a submodule that has parameters of its own: a convolution, a normalisation, a linear map. One that is
    used again later stays where it was first. Parameters that need no gradient are left out.

    Args:
        module: the network.
        run: one forward pass, such as ``lambda: module(images)``; buffers and random generators are as before it.

    Raises:
        ConfigError: two layers share a parameter, or a parameter is of no layer that was called, as where a module uses
            the weights of another by hand; blocks have to be written out then.
    """
    found: list[nn.Module] = []

    def used(layer: nn.Module, _: Any) -> None:
        if layer not in found:
            found.append(layer)

    layers = [layer for layer in module.modules() if any(True for _ in layer.parameters(recurse=False))]
    hooks = [layer.register_forward_pre_hook(used) for layer in layers]
    before = PassState.of(module)
    try:
        with torch.no_grad():
            run()
    finally:
        before.restore(module)
        for hook in hooks:
            hook.remove()
    blocks = [tuple(p for p in layer.parameters(recurse=False) if p.requires_grad) for layer in found]
    return check_blocks(module, [block for block in blocks if block])


def check_blocks(module: nn.Module, blocks: Sequence[Sequence[nn.Parameter]]) -> list[Block]:
    """Blocks as tuples, when each trained parameter of the module is in exactly one.

    Raises:
        ConfigError: names the parameter that is in two, in none, or not of the module; or a block is empty.
    """
    names = {parameter: name for name, parameter in module.named_parameters() if parameter.requires_grad}
    place: dict[nn.Parameter, int] = {}
    for number, block in enumerate(blocks):
        if not block:
            raise ConfigError(f"block {number} has no parameters")
        for parameter in block:
            if parameter not in names:
                raise ConfigError(f"block {number} has a parameter that is none of the module's trained ones")
            if parameter in place:
                raise ConfigError(
                    f"parameter {names[parameter]!r} is in blocks {place[parameter]} and {number}; a parameter is "
                    "updated once in a step: write the blocks out with it in one of them"
                )
            place[parameter] = number
    missing = [name for parameter, name in names.items() if parameter not in place]
    if missing:
        raise ConfigError(
            f"parameter {missing[0]!r} is in no block: no layer that has it was called by itself; write the blocks out"
        )
    if not blocks:
        raise ConfigError("the module has no trained parameters")
    return [tuple(block) for block in blocks]
