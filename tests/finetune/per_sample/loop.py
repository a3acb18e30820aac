"""Gradients by sample the slow way: one backward pass for each."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from finetune.per_sample import Tape

Losses = Callable[[list[int]], Tensor]
"""The losses of the samples with these numbers, run together."""

SHARE = 1e-6
"""Of the largest number of the exact gradients, in float64."""


def one_by_one(module: nn.Module, losses: Losses, count: int) -> list[dict[nn.Parameter, Tensor]]:
    """The gradient of each sample."""
    moving = [parameter for parameter in module.parameters() if parameter.requires_grad]
    found = []
    for sample in range(count):
        gradients = torch.autograd.grad(losses([sample])[0], moving, allow_unused=True)
        pairs = zip(moving, gradients, strict=True)
        found.append({weight: torch.zeros_like(weight) if each is None else each for weight, each in pairs})
    return found


def compare(module: nn.Module, losses: Losses, count: int, groups: list[int] | None = None) -> Tape:
    """Check norms, inner products, gradients and weighted sums of every layer against the loop; gives the tape."""
    exact = one_by_one(module, losses, count)
    group_B = torch.tensor(list(range(count)) if groups is None else groups)
    number = int(group_B.max()) + 1
    tape = Tape(module, number)
    with tape.recording(group_B):
        tape.backward(losses(list(range(count))))
    weight_K = torch.linspace(0.3, 1.7, number, dtype=torch.float64)
    weight_K = weight_K.to(next(module.parameters()).device)
    largest = max(float(value.abs().max()) for sample in exact for value in sample.values())
    covered = set()
    for layer in tape.layers():
        names = list(layer.found)
        covered.update(names)
        each = {name: torch.stack([sample[name] for sample in exact]) for name in names}
        summed = {
            name: torch.zeros(number, *value.shape[1:]).to(value).index_add_(0, group_B.to(value.device), value)
            for name, value in each.items()
        }
        flat = torch.cat([value.reshape(number, -1) for value in summed.values()], dim=1)
        _close(layer.gram(), flat @ flat.mT, largest**2)
        _close(layer.norms(), flat.norm(dim=1), largest)
        squares = layer.squares()
        weighted = layer.weighted(weight_K)
        for name in names:
            _close(squares[name], summed[name].square().sum(dim=0), largest**2)
            _close(layer.gradient(name), summed[name], largest)
            _close(weighted[name], torch.einsum("k,k...->...", weight_K, summed[name]), largest)
    for parameter in exact[0]:
        if parameter not in covered:
            assert not any(sample[parameter].any() for sample in exact), f"missed {tuple(parameter.shape)}"
    return tape


def _close(found: Tensor, expected: Tensor, largest: float) -> None:
    """``largest``: of all gradients; where one is 0 but for rounding, such as of the bias of keys, it is measured."""
    assert found.shape == expected.shape
    allowed = SHARE * float(expected.abs().max()) + 1e-12 * largest
    assert float((found - expected).abs().max()) <= allowed
