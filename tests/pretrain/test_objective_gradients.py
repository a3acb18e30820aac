"""Every objective: ranks that hold different data get the gradient of one process on the concatenated batch (R3).

Also when the network is given some images at a time.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from pretrain.module import PretrainModule, create_backbone
from pretrain.objectives import OBJECTIVES
from tests.pretrain.objective_views import document_of, drifting_images, views_of
from tests.pretrain.ranks import run_ranks

TOTAL = 21  # Not a multiple of the ranks: they hold different numbers of rows.
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
    "brainfuse squared": {"brainfuse": {**CHEAP, "distance": "squared"}},
    "weighted sum": {name: SMALL.get(name, {}) for name in OBJECTIVES},
    "three": {name: SMALL[name] for name in ("barlow_twins", "swav", "masked")},
}
OF_VOLUMES = [case for case in CASES if case not in ("restore colour", "three")]
MICRO = 4
"""Images at a time; the last chunk of 21, 11, 10, 6 and 5 rows has fewer."""
SHAPES = {"planes": (3, 18, 18), "volumes": (1, 8, 8, 8)}


def gradients(rank: int, world_size: int, case: str, shape: str, micro_batch: int | None = None) -> dict[str, Tensor]:
    """Own gradients and, under ``loss``, the loss; as DDP and DeepSpeed do, the caller averages them over the ranks."""
    torch.manual_seed(0)
    config = document_of(CASES[case], micro_batch)
    module = PretrainModule(create_backbone(config.model), config.objectives).double()
    views = views_of(config, drifting_images(TOTAL, SHAPES[shape]), rank, world_size)
    loss, parts = module(views, 0.05)
    loss.backward()
    module.after_step(0.1)  # It moves what is computed over the global batch, such as centres.
    found = {"loss": loss.detach(), **{f"part {name}": value for name, value in parts.items()}}
    trained = {key: p for key, p in module.named_parameters() if p.requires_grad}
    found |= {key: torch.zeros_like(p) if p.grad is None else p.grad for key, p in trained.items()}
    return found | {f"buffer {key}": b.double() for key, b in module.named_buffers()}


Found = dict[tuple[str, int | None], dict[str, Tensor]]


def all_gradients(rank: int, world_size: int, cases: list[str], shape: str, micro: list[int | None]) -> Found:
    return {(case, size): gradients(rank, world_size, case, shape, size) for case in cases for size in micro}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors: threads would wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@functools.cache
def of_one_process(case: str, shape: str) -> dict[str, Tensor]:
    return gradients(0, 1, case, shape)


@pytest.mark.parametrize(
    "world_size, shape",
    [
        pytest.param(ranks, shape, marks=[] if (ranks, shape) == (2, "planes") else [pytest.mark.slow])
        for ranks in (1, 2, 4)
        for shape in SHAPES
    ],
)
def test_mean_over_ranks_and_micro_batches_is_the_gradient_of_one_process(world_size: int, shape: str) -> None:
    cases = list(CASES) if shape == "planes" else OF_VOLUMES
    micro: list[int | None] = [MICRO] if world_size == 1 else [None, MICRO]
    if world_size == 2 and shape == "volumes":
        micro = [None]  # images are given in chunks whatever they are
    if world_size == 1:
        ranks = [all_gradients(0, 1, cases, shape, micro)]
    else:
        ranks = run_ranks(all_gradients, world_size, cases, shape, micro)
    assert {name for case in cases for name in CASES[case]} == set(OBJECTIVES) >= set(SMALL)
    for case in cases:
        expected = of_one_process(case, shape)
        # A bias before a batch norm has gradient zero but for rounding: errors are relative to the largest tensor then.
        floor = 1e-6 * max(float(truth.norm()) for truth in expected.values())
        for size in micro:
            for key, truth in expected.items():
                mean = torch.stack([found[case, size][key] for found in ranks]).mean(dim=0)
                error = float((mean - truth).norm()) / max(float(truth.norm()), floor)
                assert error < 1e-6, f"{case} {key}, {size} at once: relative error {error:.2e}"
        if world_size > 1:
            first, second = (torch.cat([found[case, None][key].flatten() for key in expected]) for found in ranks[:2])
            assert not torch.allclose(first, second), "ranks must differ for the test to mean anything"
