"""What DeepSpeed would write into a checkpoint, kept in the memory of the host."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pretrain.checkpoint import ENGINE_TAG


def copied(value: Any, seen: dict[tuple[Any, ...], Tensor] | None = None) -> Any:
    """A copy in the memory of the host that no later step changes.

    Args:
        value: tensors in dicts, lists and tuples; anything else is copied as :func:`copy.deepcopy` does it.
        seen: tensors copied so far: one that stands in several places is copied once, and saved once.
    """
    seen = {} if seen is None else seen
    if isinstance(value, Tensor):
        return _tensor(value.detach(), seen)
    if isinstance(value, dict):
        found = copy.copy(value)  # With its class and attributes: a state dict carries the versions of its modules.
        for key, each in value.items():
            found[key] = copied(each, seen)
        return found
    if type(value) in (list, tuple):
        return type(value)(copied(each, seen) for each in value)
    return copy.deepcopy(value)


def _tensor(tensor: Tensor, seen: dict[tuple[Any, ...], Tensor]) -> Tensor:
    # Of views of one buffer only what they show is copied, not the buffer.
    key = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride(), tensor.device)
    if tensor.numel() and key in seen:
        return seen[key]
    found = tensor.to("cpu", copy=True)
    seen[key] = found
    return found


def read_tensors(path: str | Path, *, map_location: Any = "cpu", mmap: bool = False) -> Any:
    """Read a file that DeepSpeed wrote: tensors, and a few classes of its own that do nothing when they are read.

    A checkpoint may have come from elsewhere, so nothing else in it is unpickled.

    Args:
        path: the file.
        map_location: as of ``torch.load``.
        mmap: leave tensors on the disk until they are asked for.

    Raises:
        UnpicklingError: there is something else in it.
    """
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    with torch.serialization.safe_globals([DynamicLossScaler, LossScaler, ZeroStageEnum, fragment_address]):
        return torch.load(path, map_location=map_location, weights_only=True, mmap=mmap)


class SnapshotEngine:
    """Stands in for DeepSpeed's writer of checkpoints: ``save`` copies, and writes nothing.

    DeepSpeed 0.19 writes while training waits, unless ``checkpoint.writer.decoupled`` is set: that sends every tensor
    through a queue to a process of its own, which must be spawned before CUDA is used, and needs its compiled
    ``async_io``, which is not there on a CPU. The methods are those of its ``CheckpointEngine``, which cannot be
    imported before an accelerator is chosen.
    """

    name = "SnapshotEngine"

    def __init__(self) -> None:
        self._taken: dict[str, Any] = {}

    def take(self, engine: Any, folder: Path) -> dict[str, Any]:
        """What ``engine`` would write on this rank, by the path of each file below ``folder``; every rank calls this.

        Args:
            engine: a DeepSpeed engine that has this object as its ``checkpoint_engine``.
            folder: of the checkpoint; nothing is written there.
        """
        self._taken = {}
        engine.save_checkpoint(str(folder), tag=ENGINE_TAG, save_latest=False)
        taken, self._taken = self._taken, {}
        return {os.path.relpath(path, folder): content for path, content in taken.items()}

    def save(self, state_dict: Mapping[str, Any], path: str) -> None:
        """Copy."""
        self._taken[path] = copied(state_dict)

    def load(self, path: str, map_location: Any = None) -> Any:
        """See :func:`read_tensors`."""
        return read_tensors(path, map_location=map_location)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Nothing: nothing is written."""

    def create(self, info: Any) -> None:
        """Nothing to prepare."""

    def commit(self, info: Any) -> bool:
        """Nothing to end."""
        return True

    def cleanup(self) -> None:
        """Nothing to end."""

    def is_data_parallel_writer(self, dp_rank: int) -> bool:
        """Rank 0 keeps what all have alike."""
        return dp_rank == 0

    def is_decoupled(self) -> bool:
        """Not in DeepSpeed's sense: it need not wait for us."""
        return False

    def preserves_storage_sharing(self) -> bool:
        """No: views are copied without the rest of their buffer."""
        return False
