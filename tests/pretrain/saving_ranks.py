"""What is slow or impossible to write, and what spawned ranks do with it; importable by them."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path
from typing import Any

import torch

from data_shards.support.errors import MedformerError
from pretrain.checkpoint import CheckpointStore
from pretrain.saving.writer import CheckpointWriter
from tests.pretrain.runs import GroupRuntime


class Gate:
    """Something that cannot be written before it is opened."""

    def __init__(self) -> None:
        self._open = threading.Event()

    def open(self) -> None:
        self._open.set()

    def __reduce__(self) -> tuple[Any, ...]:
        assert self._open.wait(60)
        return str, ("written",)


class Late:
    """Something that takes a while."""

    def __reduce__(self) -> tuple[Any, ...]:
        time.sleep(0.5)
        return str, ("written",)


class Refused:
    """Something that the disk refuses."""

    def __reduce__(self) -> tuple[Any, ...]:
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def _writer(folder: Path) -> tuple[GroupRuntime, CheckpointWriter]:
    runtime = GroupRuntime()
    return runtime, CheckpointWriter(CheckpointStore(folder), runtime, lambda _: None)


def two_ranks_write(rank: int, world_size: int, folder: Path) -> list[int]:
    """Two checkpoints, of which now one rank is late and now the other; the steps that were announced."""
    runtime, writer = _writer(folder)
    with writer:
        for step in (3, 4):
            late = Late() if rank == step % 2 else None
            writer.save(step, {"step": step}, lambda _, late=late: {f"rank-{rank}.pt": [torch.ones(3), late]})
        writer.finish()
    return [step for _, step in runtime.saved]


def one_rank_fails(rank: int, world_size: int, folder: Path, failing: int) -> str:
    """What each rank raises when one of them cannot write the second checkpoint."""
    _, writer = _writer(folder)
    try:
        with writer:
            writer.save(1, {}, lambda _: {f"rank-{rank}.pt": torch.ones(3)})
            writer.save(2, {}, lambda _: {f"rank-{rank}.pt": Refused() if rank == failing else torch.ones(3)})
            writer.finish()
    except MedformerError as error:
        return str(error)
    return "nothing"


def lost_in_the_middle(rank: int, world_size: int, folder: Path) -> str:
    """A rank is gone before it has written its part; the others learn of it from the network."""
    _, writer = _writer(folder)
    gate = Gate()
    try:
        with writer:
            writer.save(1, {}, lambda _: {f"rank-{rank}.pt": gate if rank == 1 else torch.ones(3)})
            if rank == 1:
                threading.Timer(0.5, gate.open).start()
            raise RuntimeError("Connection reset by peer")
    except RuntimeError as error:
        return str(error)
