"""Surroundings in which a training step is followed on tensors that have a shape and no values (``meta``).

What a device does and the ``meta`` device does not is put in its place: fused attention, which keeps no matrix of
scores; mixed precision; and the other ranks of the run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.testing._internal.distributed.fake_pg import FakeStore

_KEY = "AutogradMeta"
_LOW = torch.bfloat16
# What autocast computes in bfloat16 and in float32 (torch, "Autocast Op Reference"), of what networks here are made of.
_IN_BFLOAT16 = ("linear", "conv1d", "conv2d", "conv3d", "conv_transpose2d.input", "conv_transpose3d.input", "matmul")
_IN_FLOAT32 = ("layer_norm", "group_norm", "softmax.int", "log_softmax.int", "cross_entropy_loss")


@contextlib.contextmanager
def shapes_only(*, ranks: int = 1, mixed: bool = False) -> Iterator[None]:
    """A block in which new tensors have no values, and this process is rank 0 of ``ranks`` that answer nothing.

    Args:
        ranks: of the run. Their rows count in what is gathered from all of them.
        mixed: whether matrix products are in bfloat16, as by autocast on a GPU.

    Raises:
        RuntimeError: this process belongs to a process group already.
    """
    if dist.is_initialized():
        raise RuntimeError("a step cannot be followed in a process that belongs to a process group")
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.device("meta"))
        library = torch.library.Library("aten", "IMPL")
        stack.callback(library._destroy)
        library.impl("scaled_dot_product_attention", _mixed(_attention, torch.bfloat16) if mixed else _attention, _KEY)
        if mixed:
            for names, dtype in ((_IN_BFLOAT16, _LOW), (_IN_FLOAT32, torch.float32)):
                for name in names:
                    library.impl(name, _mixed(_composite(name), dtype), _KEY)
            # There is no autocast of ``meta``: that of the CPU says where mixed precision is on.
            stack.enter_context(torch.autocast("cpu", dtype=_LOW, cache_enabled=False))
        if ranks > 1:
            dist.init_process_group("fake", rank=0, world_size=ranks, store=FakeStore())
            stack.callback(dist.destroy_process_group)
        yield


def _attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Attention as the fused kernels of a GPU do it: kept are the inputs, the output and one number a row."""
    fused = torch.ops.aten._scaled_dot_product_efficient_attention
    found: Tensor = fused(q, k, v, attn_mask, torch.is_grad_enabled(), dropout_p, is_causal, scale=scale)[0]
    return found


def _composite(name: str) -> Callable[..., Any]:
    """Torch's own definition of an operation by others, which the registration here stands before."""
    packet, _, overload = name.partition(".")
    return getattr(getattr(torch.ops.aten, packet), overload or "default").decompose


def _mixed(operation: Callable[..., Any], dtype: torch.dtype) -> Callable[..., Any]:
    def run(*arguments: Any, **named: Any) -> Any:
        if torch.is_autocast_enabled("cpu"):
            arguments = tuple(_cast(each, dtype) for each in arguments)
            named = {name: _cast(each, dtype) for name, each in named.items()}
        return operation(*arguments, **named)

    return run


def _cast(value: Any, dtype: torch.dtype) -> Any:
    return value.to(dtype) if isinstance(value, Tensor) and value.dtype in (torch.float32, _LOW) else value
