"""Layers that are run group by group, each group with weights of its own: exact for whatever treats samples alike.

The weights are one tensor; only their gradients are apart. Forward and backward pass have as many operations as for the
whole batch, since each sample still passes once, so this is also the form of choice where the gradients of groups
are wanted anyway and weights are few beside activations, as in convolutions. ``vmap`` of a gradient would run the
same operations, but stops at code that looks at values (checks, sorting by masks) and at own autograd functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from finetune.heads.features import CaseFeatures
from finetune.per_sample.contributions import places_of
from finetune.per_sample.rules.base import Rule, Watch


class Whole(Rule):
    """Runs a layer with all below it once for every group, on the rows of this group.

    Arguments that have as many rows as the first are cut; others go to each group as they are.

    Attributes:
        names: methods that are run so.
    """

    whole: ClassVar[bool] = True
    names: ClassVar[tuple[str, ...]] = ("forward",)

    def __init__(self, watch: Watch, module: Any) -> None:
        super().__init__(watch, module)
        self._inside = False

    def methods(self) -> Mapping[str, Callable[..., Any]]:
        """Each of the names."""
        return {name: self._by_group(name) for name in self.names}

    def _by_group(self, name: str) -> Callable[..., Any]:
        original = getattr(self.module, name)
        call = _Call(self.module, original)

        def run(*given: Any, **named: Any) -> Any:
            if self._inside:  # a method that calls another one
                return original(*given, **named)
            count = len(given[0])
            places = places_of(self.watch.group_of(count, self.module), self.watch.groups)
            outputs, used = [], []
            for leaves, place in zip(self.watch.leaves(self.module), places, strict=True):
                if place.stop == place.start if isinstance(place, slice) else not len(place):
                    continue
                here = [cut(each, place, count) for each in given]
                there = {key: cut(each, place, count) for key, each in named.items()}
                weights = {f"module.{key}": leaf for key, leaf in leaves.items()}
                self._inside = True
                try:
                    outputs.append(functional_call(call, weights, tuple(here), there))
                finally:
                    self._inside = False
                used.append(place)
            return joined(outputs, used)

        return run


class _Call(nn.Module):
    """Any method of a module, as the forward pass of another one, in which weights can be replaced."""

    def __init__(self, module: nn.Module, method: Callable[..., Any]) -> None:
        super().__init__()
        self.module = module
        self._method = method

    def forward(self, *given: Any, **named: Any) -> Any:
        return self._method(*given, **named)


def cut(value: Any, place: slice | Tensor, count: int) -> Any:
    """The rows at ``place`` of what has ``count`` of them; anything else as it is."""
    if isinstance(value, CaseFeatures):
        rows = torch.arange(count, device=value.embedding_BD.device)[place]
        return value.take(rows)
    if isinstance(value, Tensor) and value.ndim and value.shape[0] == count:
        return value[place]
    if isinstance(value, np.ndarray) and len(value) == count:
        return value[place if isinstance(place, slice) else place.cpu().numpy()]
    return value


def joined(outputs: list[Tensor], places: list[slice | Tensor]) -> Tensor:
    """The outputs of all groups in the order of their rows."""
    together = torch.cat(outputs)
    if all(isinstance(place, slice) for place in places):
        return together
    order = torch.cat([place for place in places if isinstance(place, Tensor)])
    return together[order.argsort()]
