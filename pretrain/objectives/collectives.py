"""Differentiable reductions over the global batch.

The gradients of the ranks are averaged by the engine, so a loss is right when the mean over ranks of what each
returns is the loss of the global batch, and when gradient flows through what ranks give to each other.
``torch.distributed.all_reduce`` is invisible to autograd; these are not.

Row counts of the ranks are passed in, as the stream knows them: nothing here asks the other ranks how much they hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Ranks of the default process group; 1 without one."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Own rank in the default process group; 0 without one."""
    return dist.get_rank() if dist.is_initialized() else 0


class _AllReduceSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        # Every rank's output depends on every rank's input with weight one.
        total = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total


class _AllGatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: tuple[int, ...]) -> Tensor:
        ctx.rows = rows
        padded = x.new_zeros(max(rows), *x.shape[1:])
        padded[: len(x)] = x
        parts = [torch.empty_like(padded) for _ in rows]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, rows, strict=True)])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        total = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        start = sum(ctx.rows[: rank()])
        return total[start : start + ctx.rows[rank()]], None


def all_reduce_sum(x: Tensor) -> Tensor:
    """The sum of ``x`` over the ranks; gradients are summed over the ranks too."""
    return _AllReduceSum.apply(x) if world_size() > 1 else x


def all_gather_rows(x_BD: Tensor, rows: Sequence[int]) -> Tensor:
    """The rows of all ranks in rank order, with gradient to the rank they came from.

    Args:
        x_BD: own rows; ranks may hold different numbers of them.
        rows: how many each rank holds.

    Raises:
        ValueError: ``rows`` does not fit the world size or the own tensor.
    """
    if len(rows) != world_size() or rows[rank()] != len(x_BD):
        raise ValueError(f"rows {list(rows)} do not fit {world_size()} ranks with {len(x_BD)} rows here")
    return _AllGatherRows.apply(x_BD, tuple(rows)) if world_size() > 1 else x_BD
