"""Maps of the rows of a batch that are computed some rows at a time, with the gradient of the whole batch.

A contrastive loss cannot be accumulated over small batches: each would be its own set of negatives. But its gradient to
the embeddings can be taken of the whole batch, and then pushed back into the network some rows at a time (GradCache,
Gao et al., RepL4NLP 2021): the embeddings of all rows are made without keeping what the network computes on the way,
and what a few rows need is computed again when their gradient comes. That is checkpointing (Chen et al.,
arXiv:1604.06174) along the batch. It takes one more forward pass, and leaves one graph, so that the gradient of each
parameter is summed in its own precision and is complete at once, as training in parallel expects.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from data_shards.support.errors import ConfigError

T = TypeVar("T")
Make = Callable[[slice], T]
"""What is made of some rows: tensors with these rows, in a tuple or a dataclass."""


def in_chunks(make: Make[T], like: Tensor, size: int | None) -> T:
    """What ``make`` gives for all rows, computed ``size`` rows at a time.

    The forward pass of each chunk is repeated in the backward pass with the random numbers it had.

    Args:
        make: treats every row by itself. It must not ask other ranks for anything, as they may have fewer chunks.
        like: has as many rows as there are, and lies on the device that is computed on.
        size: rows of a chunk; None for all at once.
    """
    count = len(like)
    if size is None or count <= size:
        return make(slice(0, count))
    return joined([_chunk(make, slice(first, min(first + size, count)), like) for first in range(0, count, size)])


def check_rows_apart(network: nn.Module) -> None:
    """Refuse a network that mixes the rows of a batch, which cannot be computed some rows at a time.

    Raises:
        ConfigError: it has batch normalisation; the module is named.
    """
    for name, module in network.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise ConfigError(
                f"data.micro_batch_size: the network has batch normalisation ({name}), whose statistics would be those "
                "of a micro-batch; leave the key out, or use a network without it"
            )


def joined(parts: Sequence[T]) -> T:
    """The rows of all parts; what is not a tensor is that of the first."""
    found: Any = parts[0]
    columns: Any = parts
    if isinstance(found, Tensor):
        found = torch.cat(tuple(columns))
    elif isinstance(found, tuple) and found and isinstance(found[0], Tensor):
        found = tuple(joined(column) for column in zip(*columns, strict=True))
    elif is_dataclass(found) and not isinstance(found, type):
        found = type(found)(
            **{each.name: joined([getattr(part, each.name) for part in parts]) for each in fields(found)}
        )
    return cast(T, found)


def _chunk(make: Make[T], rows: slice, like: Tensor) -> T:
    # The tensor is not used: it tells checkpoint of which device the random generator is to be kept.
    def run(_: Tensor) -> T:
        with _uncached(like.device.type):
            return make(rows)

    if not torch.is_grad_enabled():
        return run(like)
    found: T = checkpoint(run, like[rows], use_reentrant=False)
    return found


def _uncached(device: str) -> contextlib.AbstractContextManager[Any]:
    """Autocast as it is, but for its cache.

    The cache would make one copy of each weight in low precision for all chunks, whose gradient would be the sum of
    theirs in low precision.
    """
    if not (torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)):
        return contextlib.nullcontext()
    return torch.autocast(device, dtype=torch.get_autocast_dtype(device), cache_enabled=False)
