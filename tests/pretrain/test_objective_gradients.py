"""Every objective: ranks that hold different data get the gradient of one process on the concatenated batch (R3)."""

from __future__ import annotations

from itertools import pairwise

import pytest
import timm
import torch
from torch import Tensor

from pretrain.metadata import Metadata
from pretrain.objectives import OBJECTIVES, Views, create_objective
from tests.pretrain.ranks import run_ranks

TOTAL = 37  # Not a multiple of the ranks: they hold different numbers of rows.
# Smaller than their defaults, to be quick; an objective that is not named here is tested with its defaults.
SMALL = {
    "barlow_twins": {"hidden": 12, "out": 16},
    "byol": {"hidden": 12, "out": 8, "tau": 0.9},
    "simclr": {"hidden": 12, "out": 8},
}
BACKBONE = {"embed_dim": 8, "depth": 1, "num_heads": 2, "latents": 2, "latents_per_entry": 1}


def shifted_batches() -> tuple[Tensor, Tensor]:
    """Two views whose mean and scale drift along the batch, so that ranks see different distributions."""
    generator = torch.Generator().manual_seed(3)
    drift = torch.linspace(0, 3, TOTAL, dtype=torch.float64)[:, None, None, None]
    base = torch.randn(TOTAL, 1, 8, 8, generator=generator, dtype=torch.float64) * (1 + drift) + drift
    noise = [torch.randn(TOTAL, 1, 8, 8, generator=generator, dtype=torch.float64) * 0.3 for _ in range(2)]
    return base + noise[0], base + noise[1]


def gradients(rank: int, world_size: int, name: str) -> dict[str, Tensor]:
    """Own gradients and, under ``loss``, the loss; as DDP and DeepSpeed do, the caller averages them over the ranks."""
    torch.manual_seed(0)
    backbone = timm.create_model("medformer_nano", num_classes=0, **BACKBONE).double()
    objective = create_objective(name, SMALL.get(name, {}), backbone).double()
    bounds = [TOTAL * part // world_size for part in range(world_size + 1)]
    rows = tuple(last - first for first, last in pairwise(bounds))
    own = slice(bounds[rank], bounds[rank + 1])
    images = tuple(view[own] for view in shifted_batches())
    metadata = Metadata.uniform(rows[rank])
    outcome = objective(backbone, Views(images, (metadata, metadata), rows, (None, None)))
    outcome["loss"].backward()
    found = {"loss": outcome["loss"].detach()}
    for prefix, module in (("backbone", backbone), ("objective", objective)):
        trained = {key: p for key, p in module.named_parameters() if p.requires_grad}
        found |= {f"{prefix}.{key}": torch.zeros_like(p) if p.grad is None else p.grad for key, p in trained.items()}
        found |= {f"{prefix}.{key}": b.double() for key, b in module.named_buffers()}
    return found


def all_gradients(rank: int, world_size: int) -> dict[str, dict[str, Tensor]]:
    return {name: gradients(rank, world_size, name) for name in OBJECTIVES}


@pytest.mark.parametrize("world_size", [2, 4])
def test_mean_over_ranks_is_the_gradient_of_one_process(world_size: int) -> None:
    ranks = run_ranks(all_gradients, world_size)
    assert set(ranks[0]) == set(OBJECTIVES) >= set(SMALL)
    for name in ranks[0]:
        expected = gradients(0, 1, name)
        # A bias before a batch norm has gradient zero but for rounding: errors are relative to the largest tensor then.
        floor = 1e-6 * max(float(truth.norm()) for truth in expected.values())
        for key, truth in expected.items():
            mean = torch.stack([found[name][key] for found in ranks]).mean(dim=0)
            error = float((mean - truth).norm()) / max(float(truth.norm()), floor)
            assert error < 1e-6, f"{name} {key}: relative error {error:.2e}"
        first, second = (torch.cat([found[name][key].flatten() for key in expected]) for found in ranks[:2])
        assert not torch.allclose(first, second), "ranks must differ for the test to mean anything"
