"""Gated attention over bags of different sizes, ours and torchmil's: forward and backward."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version

import torch
from torch import Tensor
from torchmil.nn import AttentionPool

from benchmarks.interleaved import interleaved
from benchmarks.table import Table
from finetune.mil.pooling import GatedAttention

PAIRS = 41
HIDDEN = 128
# Bags, instances of the largest, channels, and calls in one measurement.
SIZES = ((16, 32, 192, 20), (16, 196, 192, 10), (4, 1728, 384, 3))


def run() -> Table:
    """Medians of pairs that alternate."""
    rows = []
    for size in SIZES:
        for padded in (False, True):
            rows.append(_row(size, padded=padded))
    return Table(
        title="Gated attention over bags",
        command="python -m benchmarks mil",
        columns=("bags, instances, channels", "sizes", "medformer, ms", f"torchmil {version('torchmil')}, ms", "ratio"),
        rows=tuple(rows),
        remarks=f"Forward and backward to input and weights, {HIDDEN} hidden channels, float32 on one thread, in time "
        f"of the processor; medians of {PAIRS} pairs in turn, and the 95 % interval of the ratio of ours to torchmil's "
        "at the same weights. Outputs and gradients of both were found equal before. Where sizes differ, from a "
        "quarter to all of the instances are there, and ours computes these alone.",
    )


def _row(size: tuple[int, int, int, int], *, padded: bool) -> tuple[str, ...]:
    bags, instances, channels, calls = size
    torch.manual_seed(0)
    ours = GatedAttention(channels, HIDDEN)
    theirs = AttentionPool(channels, HIDDEN, gated=True)
    theirs.fc1.module.load_state_dict(ours.content.state_dict())
    theirs.fc2.load_state_dict(ours.score.state_dict())
    assert ours.gate is not None
    theirs.fc_gated.module.load_state_dict(ours.gate.state_dict())
    given_BHD = torch.randn(bags, instances, channels)
    mask_BH = torch.arange(instances) < torch.linspace(instances / 4, instances, bags).round()[:, None]
    # torchmil's mask is of numbers.
    masks = (mask_BH, mask_BH.float()) if padded else (None, None)
    first = _step(ours, given_BHD, masks[0], [*ours.content.parameters(), *ours.gate.parameters(), ours.score.weight])
    second = _step(
        theirs, given_BHD, masks[1], [*theirs.fc1.parameters(), *theirs.fc_gated.parameters(), theirs.fc2.weight]
    )
    for one, other in zip(first(), second(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    found = interleaved(first, second, pairs=PAIRS, calls=calls)
    return (
        f"{bags} x {instances:,} x {channels}",
        "differ" if padded else "equal",
        f"{found.first_s * 1e3:.2f}",
        f"{found.second_s * 1e3:.2f}",
        found.text,
    )


def _step(
    function: Callable[..., Tensor], given_BHD: Tensor, mask_BH: Tensor | None, weights: list[Tensor]
) -> Callable[[], tuple[Tensor, ...]]:
    """Forward and backward; it returns outputs and gradients."""
    leaf_BHD = given_BHD.clone().requires_grad_()

    def step() -> tuple[Tensor, ...]:
        outputs = function(leaf_BHD, mask_BH)
        return outputs.detach(), *torch.autograd.grad(outputs.square().sum(), [leaf_BHD, *weights])

    return step
