"""Optimizer state that ZeRO 1 or 2 has split over some workers, handed to another number of them.

DeepSpeed lays the parameters of a group end to end, pads the end so that every worker gets an equal part, and lets each
write its own part; it refuses to load the parts into another number of workers. Since only optimizers are allowed that
treat every number alone (:data:`pretrain.optim.ELEMENTWISE`), the parts put together and cut anew are the state that
the new workers would have had: no number is changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import Tensor

from data_shards.support.errors import CheckpointError
from pretrain.saving.snapshot import read_tensors

_STATE, _MASTERS = "base_optimizer_state", "single_partition_of_fp32_groups"


def load_resharded(engine: Any, folder: Path, tag: str) -> str | None:
    """Load a checkpoint of another number of workers into a DeepSpeed engine at ZeRO stage 1 or 2.

    A collective of all workers. Each reads of the other parts only what it needs of them.

    Args:
        engine: the engine.
        folder: of the checkpoint.
        tag: name of the folder in it that DeepSpeed has written.

    Returns:
        The path that was loaded, or None when DeepSpeed has found no state.

    Raises:
        CheckpointError: a part is missing, or holds what cannot be cut.
    """
    path, state = engine.load_checkpoint(str(folder), tag=tag, load_module_only=True)
    if path is None:
        return None
    engine.global_steps, engine.skipped_steps = state["global_steps"], state["skipped_steps"]
    engine.global_samples = state.get("global_samples", engine.global_steps * engine.train_batch_size())
    optimizer = engine.optimizer
    rank, workers = dist.get_rank(), dist.get_world_size()
    lengths = [len(flat) // workers for flat in optimizer.bit16_groups_flat]
    part = own_part(read_parts(folder / tag, state["dp_world_size"]), rank, lengths)
    optimizer.load_state_dict(
        [part] * workers,  # of which DeepSpeed takes that of this rank
        load_optimizer_states=True,
        load_from_fp32_weights=engine.zero_load_from_fp32_weights(),
    )
    return str(path)


def read_parts(folder: Path, workers: int) -> list[dict[str, Any]]:
    """What each of the workers wrote; tensors stay on the disk until they are asked for.

    Raises:
        CheckpointError: a part is missing.
    """
    parts = []
    for rank in range(workers):
        found = sorted(folder.glob(f"*zero_pp_rank_{rank}_mp_rank_00_optim_states.pt"))
        if not found:
            raise CheckpointError(f"{folder}: the optimizer state of worker {rank} of {workers} is missing")
        content = read_tensors(found[0], mmap=True)
        parts.append(content["optimizer_state_dict"])
    return parts


def own_part(parts: Sequence[dict[str, Any]], rank: int, lengths: Sequence[int]) -> dict[str, Any]:
    """The part of one of the new workers, as if it had written it.

    Args:
        parts: of all the old workers.
        rank: of the new worker.
        lengths: by group of parameters, how many numbers each of the new workers has, with padding.

    Raises:
        CheckpointError: the state has a tensor that is neither one number nor as long as the parameters.
    """
    first = parts[0]
    state: dict[int, dict[str, Any]] = {}
    for group, values in first[_STATE]["state"].items():
        start, stop = rank * lengths[group], (rank + 1) * lengths[group]
        state[group] = {}
        for name, value in values.items():
            pieces = [part[_STATE]["state"][group][name] for part in parts]
            if not isinstance(value, Tensor) or value.ndim == 0:
                state[group][name] = value
            elif value.ndim == 1 and all(len(piece) == len(value) for piece in pieces):
                state[group][name] = cut(pieces, start, stop)
            else:
                raise CheckpointError(f"optimizer state {name!r} of shape {tuple(value.shape)} cannot be cut anew")
    masters = [
        cut([part[_MASTERS][group] for part in parts], rank * length, (rank + 1) * length)
        for group, length in enumerate(lengths)
    ]
    base = {"state": state, "param_groups": first[_STATE]["param_groups"]}
    return {**first, _STATE: base, _MASTERS: masters, "group_paddings": [0] * len(lengths)}


def cut(pieces: Sequence[Tensor], start: int, stop: int) -> Tensor:
    """``torch.cat(pieces)[start:stop]`` without reading the rest; zeros where there is nothing, as DeepSpeed pads."""
    target = pieces[0].new_zeros(stop - start)
    begin = 0
    for piece in pieces:
        low, high = max(start, begin), min(stop, begin + len(piece))
        if low < high:
            target[low - start : high - start] = piece[low - begin : high - begin]
        begin += len(piece)
    return target
