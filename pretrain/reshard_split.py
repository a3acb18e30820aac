"""Weights and optimizer state that ZeRO 3 has split over some workers, handed to another number of them.

DeepSpeed pads each parameter until every worker gets an equal part of it, lays the parts of a worker end to end, and
lets each write its own; it refuses to load them into another number of workers. Put together, without the padding, and
cut anew they are what the new workers would have had: no number is changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from data_shards.support.errors import CheckpointError
from pretrain.saving.snapshot import read_tensors

_STATE, _MASTERS, _FROZEN = "optimizer_state_dict", "fp32_flat_groups", "frozen_param_fragments"


def load_split(engine: Any, folder: Path, tag: str) -> str:
    """Load a checkpoint of another number of workers into a DeepSpeed engine at ZeRO stage 3.

    A collective of all workers; each reads the parts of all old ones, one file after the other.

    Args:
        engine: the engine.
        folder: of the checkpoint.
        tag: name of the folder in it that DeepSpeed has written.

    Returns:
        The folder that was loaded.

    Raises:
        CheckpointError: a part is missing, or holds what cannot be cut.
    """
    rank, workers = dist.get_rank(), dist.get_world_size()
    model = _read(folder / tag, 0, "model_states")
    old_workers = int(model["dp_world_size"])
    models = [model, *(_read(folder / tag, old, "model_states") for old in range(1, old_workers))]
    optims = [_read(folder / tag, old, "optim_states")["optimizer_state_dict"] for old in range(old_workers)]

    optimizer = engine.optimizer
    optimizer.checkpoint_event_prologue()
    engine.load_module_state_dict({**model, _FROZEN: _frozen(engine, models, rank, workers)})
    counts = [[parameter.ds_numel for parameter in group] for group in optimizer.fp16_groups]
    part = own_part(optims, counts, rank, workers)
    optimizer.load_state_dict([part] * workers, load_optimizer_states=True)
    optimizer.checkpoint_event_epilogue()
    engine.global_steps, engine.global_samples = model["global_steps"], model["global_samples"]
    engine.skipped_steps = model["skipped_steps"]
    return str(folder / tag)


def own_part(
    parts: Sequence[dict[str, Any]], counts: Sequence[Sequence[int]], rank: int, workers: int
) -> dict[str, Any]:
    """The optimizer state of one of the new workers, as if it had written it.

    Args:
        parts: of all the old workers.
        counts: numbers in each parameter, by group as the engine has grouped them.
        rank: of the new worker.
        workers: how many new ones there are.

    Raises:
        CheckpointError: the parameters were grouped otherwise, or the state has a tensor that is neither one number
            nor as long as the parameters.
    """
    first = parts[0]
    old = len(parts)
    lengths = [sum(-(-count // old) for count in group) for group in counts]
    if [len(flat) for flat in first[_MASTERS]] != lengths:
        raise CheckpointError("the weights of the checkpoint are grouped otherwise than those of this run")
    state: dict[int, dict[str, Any]] = {}
    for group, values in first[_STATE]["state"].items():
        state[group] = {}
        for name, value in values.items():
            if not isinstance(value, Tensor) or value.ndim == 0:
                state[group][name] = value
            elif value.shape == (lengths[group],):
                pieces = [part[_STATE]["state"][group][name] for part in parts]
                state[group][name] = cut_each(pieces, counts[group], rank, workers)
            else:
                raise CheckpointError(f"optimizer state {name!r} of shape {tuple(value.shape)} cannot be cut anew")
    masters = [
        cut_each([part[_MASTERS][group] for part in parts], numbers, rank, workers)
        for group, numbers in enumerate(counts)
    ]
    base = {"state": state, "param_groups": first[_STATE]["param_groups"]}
    return {**first, _STATE: base, _MASTERS: masters, "partition_count": workers}


def cut_each(pieces: Sequence[Tensor], counts: Sequence[int], rank: int, workers: int) -> Tensor:
    """What a new worker has of parameters that lie end to end.

    Args:
        pieces: what each old worker has of them.
        counts: numbers in each parameter.
        rank: of the new worker.
        workers: how many new ones there are.
    """
    found, start = [], 0
    for count in counts:
        size = -(-count // len(pieces))
        whole = torch.cat([piece[start : start + size] for piece in pieces])[:count]
        part = -(-count // workers)
        own = whole[rank * part : (rank + 1) * part]
        found.append(torch.cat([own, own.new_zeros(part - len(own))]))
        start += size
    return torch.cat(found)


def _frozen(engine: Any, models: Sequence[dict[str, Any]], rank: int, workers: int) -> dict[str, Tensor]:
    """What this worker has of the parameters that the optimizer does not move, such as moving averages."""
    numbers = {name: parameter.ds_numel for name, parameter in engine.module.named_parameters()}
    found = {}
    for name in models[0][_FROZEN]:
        if name not in numbers:
            raise CheckpointError(f"the checkpoint holds {name}, which the run has not")
        found[name] = cut_each([model[_FROZEN][name] for model in models], [numbers[name]], rank, workers)
    return found


def _read(folder: Path, rank: int, what: str) -> dict[str, Any]:
    found = sorted(folder.glob(f"*zero_pp_rank_{rank}_mp_rank_00_{what}.pt"))
    if not found:
        raise CheckpointError(f"{folder}: the part of worker {rank} is missing")
    content: dict[str, Any] = read_tensors(found[0], mmap=True)
    return content
