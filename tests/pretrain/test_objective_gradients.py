"""Every objective: ranks that hold different data get the gradient of one process on the concatenated batch (R3)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pretrain.module import PretrainModule, create_backbone
from pretrain.objectives import OBJECTIVES
from tests.pretrain.objective_views import document_of, drifting_images, views_of
from tests.pretrain.ranks import run_ranks

TOTAL = 37  # Not a multiple of the ranks: they hold different numbers of rows.
CHEAP = {"hidden": 12, "out": 8}
CROPS = {"count": 2, "size": 0.5}
# Smaller than their defaults, to be quick; an objective that is not named here is tested with its defaults.
SMALL: dict[str, dict[str, Any]] = {
    "barlow_twins": {"hidden": 12, "out": 16, "weight": 0.1},
    "byol": {**CHEAP, "tau": 0.9},
    "simclr": CHEAP,
    "swav": {**CHEAP, "prototypes": 10, "small": CROPS},
    "dino": {**CHEAP, "prototypes": 10, "small": CROPS, "ibot": 0.5, "cells": 1, "share": 0.4},
    "masked": {"cells": 1, "weight": 2.0},
    "restore": {"hidden": 4},
    "jigsaw": {},
    "rotation": {},
    "brainfuse": CHEAP,
}
CASES: dict[str, dict[str, dict[str, Any]]] = {
    **{name: {name: SMALL.get(name, {})} for name in OBJECTIVES},
    "dino alone": {"dino": {**SMALL["dino"], "ibot": 0.0}},
    **{
        f"restore {task}": {"restore": {"hidden": 4, "task": task}}
        for task in ("super_resolution", "artefacts", "colour")
    },
    "brainfuse simclr": {"brainfuse": {**CHEAP, "joint": "simclr", "parents": 4}},
    "weighted sum": {name: SMALL.get(name, {}) for name in OBJECTIVES},
    "three": {name: SMALL[name] for name in ("barlow_twins", "swav", "masked")},
}
OF_VOLUMES = ("masked", "restore", "jigsaw", "rotation", "weighted sum")
"""Those that treat volumes in another way than planes, and all together."""
SHAPES = {"planes": (3, 18, 18), "volumes": (1, 8, 8, 8)}


def gradients(rank: int, world_size: int, case: str, shape: str) -> dict[str, Tensor]:
    """Own gradients and, under ``loss``, the loss; as DDP and DeepSpeed do, the caller averages them over the ranks."""
    torch.manual_seed(0)
    config = document_of(CASES[case])
    module = PretrainModule(create_backbone(config.model), config.objectives).double()
    views = views_of(config, drifting_images(TOTAL, SHAPES[shape]), rank, world_size)
    loss, parts = module(views, 0.05)
    loss.backward()
    module.after_step(0.1)  # It moves what is computed over the global batch, such as centres.
    found = {"loss": loss.detach(), **{f"part {name}": value for name, value in parts.items()}}
    trained = {key: p for key, p in module.named_parameters() if p.requires_grad}
    found |= {key: torch.zeros_like(p) if p.grad is None else p.grad for key, p in trained.items()}
    return found | {f"buffer {key}": b.double() for key, b in module.named_buffers()}


def all_gradients(rank: int, world_size: int, cases: list[tuple[str, str]]) -> dict[tuple[str, str], dict[str, Tensor]]:
    return {case: gradients(rank, world_size, *case) for case in cases}


@pytest.mark.parametrize(("world_size", "shape"), [(2, "planes"), (4, "planes"), (2, "volumes")])
def test_mean_over_ranks_is_the_gradient_of_one_process(world_size: int, shape: str) -> None:
    cases = [(case, shape) for case in CASES if shape == "planes" or case in OF_VOLUMES]
    ranks = run_ranks(all_gradients, world_size, cases)
    assert {name for case, _ in cases for name in CASES[case]} == set(OBJECTIVES) >= set(SMALL)
    for case in cases:
        expected = gradients(0, 1, *case)
        # A bias before a batch norm has gradient zero but for rounding: errors are relative to the largest tensor then.
        floor = 1e-6 * max(float(truth.norm()) for truth in expected.values())
        for key, truth in expected.items():
            mean = torch.stack([found[case][key] for found in ranks]).mean(dim=0)
            error = float((mean - truth).norm()) / max(float(truth.norm()), floor)
            assert error < 1e-6, f"{case} {key}: relative error {error:.2e}"
        first, second = (torch.cat([found[case][key].flatten() for key in expected]) for found in ranks[:2])
        assert not torch.allclose(first, second), "ranks must differ for the test to mean anything"
