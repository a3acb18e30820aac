"""The gradient that two ranks average under DeepSpeed, and the one that is right; importable by spawned ranks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pretrain.config import PretrainConfig
from pretrain.module import PretrainModule, create_backbone
from pretrain.sharding import initialise
from tests.pretrain.runs import GroupRuntime, document

os.environ.setdefault("DS_ACCELERATOR", "cpu")


class Squares(nn.Module):
    """A loss that reads one image batch of its rank: nothing in it asks the other ranks for anything."""

    def __init__(self, module: PretrainModule) -> None:
        super().__init__()
        self.backbone = module.backbone

    def forward(self, images: Tensor) -> Tensor:
        return self.backbone.features(images).embedding_BD.square().mean()

    def no_weight_decay(self) -> set[str]:
        return set()

    def param_groups(self) -> list[dict[str, Any]]:
        return []


Case = tuple[int, str, dict[str, Any]]
"""ZeRO stage, precision, and what else the document's section for DeepSpeed says."""


def all_averaged_gradients(rank: int, world_size: int, cases: Sequence[Case]) -> list[dict[str, tuple[float, float]]]:
    """See :func:`averaged_gradients`, for one case after the other."""
    return [averaged_gradients(rank, world_size, *case) for case in cases]


def averaged_gradients(
    rank: int, world_size: int, stage: int, precision: str, deepspeed: dict[str, Any]
) -> dict[str, tuple[float, float]]:
    """For each parameter how far DeepSpeed's average is from that of float64, and how far that rounded to bfloat16 is.

    Both as the largest difference over the largest value. The gradient of each rank is taken without DeepSpeed, by the
    same network under the same autocast.
    """
    from deepspeed.utils import safe_get_full_grad

    content = document(
        Path("none"),
        Path("none"),
        precision=precision,
        deepspeed={"zero_optimization": {"stage": stage}, **deepspeed},
    )
    config = PretrainConfig.model_validate(content)
    torch.manual_seed(0)
    module: Any = Squares(PretrainModule(create_backbone(config.model), config.objectives))
    generator = torch.Generator().manual_seed(7 + rank)
    images = torch.randn(6, 1, 16, 16, generator=generator) * 3.0**rank  # Ranks whose gradients differ in size.
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        loss = module(images)
    loss.backward()
    named = {name: parameter for name, parameter in module.named_parameters() if parameter.grad is not None}
    right = {}
    for name, parameter in named.items():
        right[name] = parameter.grad.double()
        dist.all_reduce(right[name])
        right[name] /= world_size
        parameter.grad = None

    engine, _ = initialise(module, config, GroupRuntime())
    engine.backward(engine(images))
    errors = {}
    for name, parameter in named.items():
        scale = right[name].abs().max().clamp_min(1e-30)
        found = parameter.grad if stage == 0 else safe_get_full_grad(parameter)
        assert found is not None, name
        errors[name] = tuple(
            float((value.double().view_as(right[name]) - right[name]).abs().max() / scale)
            for value in (found, right[name].bfloat16())
        )
    return errors
