"""A fitted model whose layers forget what they learned, from the output down."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from finetune.classifier.member import Member
from finetune.fit.linear import LinearVote
from finetune.random_state import seeded

HEAD = "head"


def cascade(member: Member, seed: int) -> Iterator[tuple[str, Member]]:
    """The model with its head randomised, then also the layer below, and so on down to the input.

    Adebayo et al., Sanity checks for saliency maps, NeurIPS 2018, section 3.1: a map that does not change shows the
    image and not the model. A layer is randomised by shuffling each of its tensors, which keeps the sizes of weights
    and nothing that was learned of their order.

    Args:
        member: stays as it is.
        seed: of the shuffling.

    Yields:
        Up to which layer, and a model of its own.
    """
    backbone = copy.deepcopy(member.backbone)
    head: Any = member.head
    with seeded(seed):
        if isinstance(head, LinearVote):
            generator = np.random.default_rng(seed)
            models = tuple(
                replace(model, affine=replace(model.affine, weight_KD=generator.permuted(model.affine.weight_KD)))
                for model in head.models
            )
            head = replace(head, models=models)
        else:
            head = copy.deepcopy(head)
            shuffle(list(head.parameters()))
        now = replace(member, backbone=backbone, head=head)
        yield HEAD, now
        for name, tensors in layers(backbone):
            shuffle(tensors)
            yield name, now


def layers(backbone: nn.Module) -> Iterator[tuple[str, list[Tensor]]]:
    """The layers of a network from its output to its input, each with its weights; together all that there are."""
    groups: dict[str, list[Tensor]] = {}
    for name, parameter in backbone.named_parameters():
        first, _, rest = name.partition(".")
        numbered = first in ("blocks", "encoders_again", _OTHERS)
        key = f"{first}.{rest.partition('.')[0]}" if numbered else first
        groups.setdefault(_FIRST.get(key, key), []).append(parameter)
    heights = {name: (_height(name), number) for number, name in enumerate(groups)}
    yield from sorted(groups.items(), key=lambda group: heights[group[0]], reverse=True)


_OTHERS = "model"
"""The part of a backbone that is a network of others, whose layers were made from input to output."""

_FIRST = {"norm": "decoder", "query": "decoder", "latents": "encoder", "tags": "adapter", "head": "decoder"}
"""Small parts go with the layer that they feed, or that feeds them."""


def _height(name: str) -> float:
    first, _, number = name.partition(".")
    if first in ("blocks", "encoders_again"):
        return 2 + int(number) + (0.5 if first == "blocks" else 0)  # latents read again before the block of that number
    return {"decoder": float("inf"), "encoder": 1, "adapter": 0}.get(first, 1.5)


@torch.no_grad()
def shuffle(tensors: list[Tensor]) -> None:
    """The entries of each tensor in another order, in place."""
    for tensor in tensors:
        order = torch.randperm(tensor.numel())
        tensor.copy_(tensor.detach().cpu().flatten()[order].reshape(tensor.shape))
