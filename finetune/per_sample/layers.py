"""The gradients of one layer by group of samples: what can be asked of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from finetune.per_sample.contributions import Contribution, Dense, Outer, joined


@dataclass
class LayerGradients:
    """Of the parameters of one module.

    Attributes:
        name: of the module.
        groups: how many groups of samples there are.
        found: of each parameter, what its uses add, at most one outer product and one of gradients.
    """

    name: str
    groups: int
    found: dict[nn.Parameter, list[Contribution]]

    @classmethod
    def of(cls, name: str, groups: int, found: Mapping[nn.Parameter, Sequence[Contribution]]) -> LayerGradients:
        """The uses of each parameter joined."""
        return cls(name, groups, {parameter: joined(each) for parameter, each in found.items()})

    def gram(self) -> Tensor:
        """Inner products of the gradients of all groups, ``(K, K)``; their diagonal holds squared norms.

        Gradients that are made for it are kept where they take less memory than what they were made of.
        """
        total: Tensor | None = None
        for parameter, contributions in self.found.items():
            first = contributions[0]
            if len(contributions) == 1 and isinstance(first, Outer) and first.cheaper_by_rows(self.groups):
                gram = first.gram(self.groups)
            else:
                made = _dense(contributions, self.groups)
                if made.numel() <= sum(each.numel() for each in contributions):
                    self.found[parameter] = [Dense(made)]
                gradient = made.reshape(self.groups, -1)
                gram = gradient @ gradient.mT
            total = gram if total is None else total + gram
        assert total is not None, f"layer {self.name} was not used"
        return total

    def norms(self) -> Tensor:
        """Of the gradient of each group, ``(K,)``."""
        return self.gram().diagonal().clamp(min=0).sqrt()

    def gradient(self, parameter: nn.Parameter) -> Tensor:
        """Of each group, ``K`` and the axes of ``parameter``."""
        return _dense(self.found[parameter], self.groups).reshape(self.groups, *parameter.shape)

    def squares(self) -> dict[nn.Parameter, Tensor]:
        """Of each parameter the sum over groups of the squares of each number of the gradient."""
        result = {}
        for parameter, contributions in self.found.items():
            first = contributions[0]
            if len(contributions) == 1 and isinstance(first, Outer):
                total = first.squares(self.groups)
            else:
                total = _dense(contributions, self.groups).square().sum(dim=0)
            result[parameter] = total.reshape(parameter.shape)
        return result

    def weighted(self, weight_K: Tensor) -> dict[nn.Parameter, Tensor]:
        """Of each parameter the sum over groups of weight times gradient."""
        result = {}
        for parameter, contributions in self.found.items():
            parts = [
                each.weighted(weight_K)
                if isinstance(each, Outer)
                else torch.einsum("k,k...->...", weight_K.to(each.gradient_K.dtype), each.gradient_K)
                for each in contributions
            ]
            result[parameter] = (parts[0] if len(parts) == 1 else parts[0] + parts[1]).reshape(parameter.shape)
        return result

    def settle(self) -> None:
        """Make all gradients, so that activations can go."""
        for parameter, contributions in self.found.items():
            self.found[parameter] = [Dense(_dense(contributions, self.groups))]


def _dense(contributions: Sequence[Contribution], groups: int) -> Tensor:
    parts = [each.gradient(groups) if isinstance(each, Outer) else each.gradient_K for each in contributions]
    return parts[0] if len(parts) == 1 else parts[0].reshape(parts[1].shape) + parts[1]
