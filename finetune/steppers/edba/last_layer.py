"""The last layer of a head: its gradients by sample, and what the network would say after a step of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from finetune.heads import CaseFeatures
from pretrain.backbone.modes import evaluating


class Seen:
    """What a head was given, part by part of a batch."""

    def __init__(self) -> None:
        self.features: list[CaseFeatures] = []

    @contextmanager
    def by(self, readout: nn.Module) -> Iterator[None]:
        """Within the block the features of every call are kept, without gradient."""

        def see(_: nn.Module, given: tuple[Any, ...]) -> None:
            self.features.append(given[0].detached())

        handle = readout.register_forward_pre_hook(see)
        try:
            yield
        finally:
            handle.remove()


@torch.no_grad()
def logits_after(readout: nn.Module, features: Sequence[CaseFeatures], steps: dict[str, Tensor], rate: float) -> Tensor:
    """Logits ``(B, K)`` of a head whose weights went along a gradient; without dropout.

    Args:
        readout: stays as it is.
        features: of the cases, in parts.
        steps: gradient of each weight that moves, by its name.
        rate: how far.
    """
    weights = dict(readout.named_parameters())
    moved = {name: weights[name] - rate * gradient for name, gradient in steps.items()}
    with evaluating(readout):
        return torch.cat([functional_call(readout, moved, (part,)) for part in features])
