"""Networks that follow the one that is trained: moving averages of it, without gradient."""

from __future__ import annotations

import copy
import math
from typing import TypeVar

import torch
from torch import nn

from pretrain.partitions import lerp_parts

M = TypeVar("M", bound=nn.Module)


def follower(network: M) -> M:
    """A copy that takes no gradient; its batch-norm buffers are to follow too, and its own batches leave them alone."""
    copied = copy.deepcopy(network).requires_grad_(False)
    for module in copied.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 0.0
    return copied


def rate_at(start: float, progress: float) -> float:
    """The share of the old that is kept, from ``start`` to 1 along a cosine (BYOL, Grill et al., section 3.2)."""
    return 1 - (1 - start) * (math.cos(math.pi * progress) + 1) / 2


@torch.no_grad()
def follow(slow: nn.Module, fast: nn.Module, kept: float) -> None:
    """Move ``slow`` to ``kept slow + (1 - kept) fast``, buffers included; every rank calls this."""
    lerp_parts(slow.parameters(), fast.parameters(), 1 - kept)
    for before, now in zip(slow.buffers(), fast.buffers(), strict=True):
        if before.is_floating_point():
            before.lerp_(now, 1 - kept)
        else:
            before.copy_(now)
