"""Where the weight of a linear layer may be used without calling the layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def is_plain(layer: nn.Module) -> bool:
    """Whether calling the layer does what its weight and bias say, and nothing else.

    Some products are cheaper when they are done with parts of a weight. A layer that something else has taken hold of
    must be called instead: a wrapper or subclass (low-rank adapters, quantisation), a parametrization (which is a
    subclass), a hook, another ``forward`` set on it, or a weight that is a kind of tensor of its own. torch decides so
    on the fast paths of its transformer layers, too.
    """
    if type(layer) is not nn.Linear or is_taken(layer):
        return False
    # What torch.export puts in the place of weights is a tensor class, and stands for an ordinary one.
    return torch.compiler.is_exporting() or type(layer.weight) in (nn.Parameter, Tensor)


def is_taken(module: nn.Module) -> bool:
    """Whether a hook, or another ``forward`` set on it, wants to see what goes through the module."""
    hooks = (module._forward_pre_hooks, module._forward_hooks, module._backward_pre_hooks, module._backward_hooks)
    return "forward" in vars(module) or any(hooks)
