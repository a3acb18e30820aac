"""Evaluation for a moment, and batch normalisation that keeps its statistics."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """``module`` in evaluation mode; afterwards each module in it is in the mode that it was in."""
    modes = [(each, each.training) for each in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for each, training in modes:
            each.training = training


@contextlib.contextmanager
def without_batch_statistics(module: nn.Module) -> Iterator[None]:
    """In the block batch normalisation uses the statistics it has, and they stay as they are."""
    training = [
        each for each in module.modules() if isinstance(each, nn.modules.batchnorm._BatchNorm) and each.training
    ]
    for each in training:
        each.training = False
    try:
        yield
    finally:
        for each in training:
            each.training = True


def hold_statistics(module: nn.Module) -> None:
    """Batch normalisation whose own weights are not trained keeps its statistics; to be called after ``train()``."""
    for each in module.modules():
        if isinstance(each, nn.modules.batchnorm._BatchNorm) and each.weight is not None:
            each.train(each.training and each.weight.requires_grad)
