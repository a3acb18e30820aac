"""Batch normalisation over all ranks: outputs, gradients and running statistics of one process."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pretrain.objectives.batchnorm import GlobalBatchNorm1d
from pretrain.objectives.collectives import all_gather_rows
from pretrain.objectives.projector import Projector
from tests.pretrain.ranks import run_ranks

ROWS = (5, 8)
WIDTH = 6


def rows_with_drift() -> Tensor:
    x = torch.randn(sum(ROWS), WIDTH, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return x * torch.linspace(1, 4, len(x), dtype=torch.float64)[:, None] + torch.arange(len(x))[:, None]


def normalised(norm: nn.BatchNorm1d, x: Tensor, first: int) -> dict[str, Tensor]:
    """Two training steps, then evaluation; the loss weighs every row of the whole batch differently."""
    weights = torch.arange(1, sum(ROWS) * WIDTH + 1, dtype=torch.float64).sin().unflatten(0, (-1, WIDTH))
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.5, 2, WIDTH))
        norm.bias.copy_(torch.linspace(-1, 1, WIDTH))
    norm(2 * x)
    x = x.clone().requires_grad_()
    y = norm(x)
    (y * weights[first : first + len(x)]).sum().backward()
    found = {"y": y.detach(), "x": x.grad, "weight": norm.weight.grad, "bias": norm.bias.grad}
    found |= {"evaluated": norm.eval()(x).detach()}
    return found | {name: buffer.double() for name, buffer in norm.named_buffers()}


def on_rank(rank: int, world_size: int) -> dict[str, dict[str, Tensor]]:
    first = sum(ROWS[:rank])
    own = rows_with_drift()[first : first + ROWS[rank]]
    norm = GlobalBatchNorm1d(WIDTH).double()
    norm.total_rows = sum(ROWS)
    gathered = all_gather_rows(own, ROWS)
    with pytest.raises(ValueError, match="do not fit"):
        all_gather_rows(own, ROWS[::-1])
    torch.manual_seed(0)
    projector = Projector([WIDTH, 4, 3])
    with torch.autocast("cpu", torch.bfloat16):
        projected = projector.project(own.float(), sum(ROWS))
    return {
        "norm": normalised(norm, own, first),
        "gathered": {"rows": gathered},
        "projected": {"z": projected.detach()},
    }


def test_one_process_is_torchs_batch_norm() -> None:
    ours = normalised(GlobalBatchNorm1d(WIDTH).double(), rows_with_drift(), 0)
    theirs = normalised(nn.BatchNorm1d(WIDTH).double(), rows_with_drift(), 0)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_unequal_ranks_are_one_process_on_the_concatenation() -> None:
    ranks = run_ranks(on_rank, 2)
    truth = normalised(nn.BatchNorm1d(WIDTH).double(), rows_with_drift(), 0)
    for name in ("y", "x", "evaluated"):
        torch.testing.assert_close(
            torch.cat([found["norm"][name] for found in ranks]), truth[name], rtol=1e-9, atol=1e-9
        )
    for name in ("weight", "bias"):
        torch.testing.assert_close(sum(found["norm"][name] for found in ranks), truth[name], rtol=1e-9, atol=1e-9)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        for found in ranks:
            torch.testing.assert_close(found["norm"][name], truth[name], rtol=1e-9, atol=1e-9)
    for found in ranks:
        assert torch.equal(found["gathered"]["rows"], rows_with_drift())

    torch.manual_seed(0)
    projected = Projector([WIDTH, 4, 3]).project(rows_with_drift().float(), sum(ROWS)).detach()
    in_bfloat16 = torch.cat([found["projected"]["z"] for found in ranks])
    assert in_bfloat16.dtype == torch.float32, "heads are computed in full precision under autocast"
    torch.testing.assert_close(in_bfloat16, projected, rtol=1e-4, atol=1e-5)
