"""What the engine needs to know of its surroundings, and the plain ``torch.distributed`` surroundings."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Protocol, TypeVar, cast

import torch
import torch.distributed as dist

from data_shards.support.errors import MedformerError

T = TypeVar("T")


class Runtime(Protocol):
    """The surroundings of one worker.

    Attributes:
        rank: of this worker among all.
        local_rank: of this worker on its machine.
        world_size: number of workers.
        attempt: how many times the run was started before.
        device: where this worker computes.
    """

    rank: int
    local_rank: int
    world_size: int
    attempt: int
    device: torch.device

    def report(self, metrics: Mapping[str, float], step: int) -> None:
        """Take note of metrics of the global batch; called on every rank with the same numbers, and must be cheap."""

    def checkpoint_saved(self, folder: Path, step: int) -> None:
        """Take note that a checkpoint is complete; called on every rank."""

    def stop_requested(self) -> bool:
        """Whether this worker should write a checkpoint and end.

        Called in every step, equally often on every rank, and must be cheap. One rank that says so is enough: the
        engine lets all of them stop after the same step.
        """


class TorchRuntime:
    """Surroundings made by ``torchrun``, or a single process on its own.

    SIGTERM, which Slurm and Kubernetes send before they take a machine away, asks the run to write a checkpoint and
    stop.
    """

    def __init__(self) -> None:
        self._alone: dict[str, str] = {}
        if "RANK" not in os.environ:
            self._alone = {
                "RANK": "0",
                "LOCAL_RANK": "0",
                "WORLD_SIZE": "1",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(_free_port()),
            }
            os.environ.update(self._alone)
        self.rank = int(os.environ["RANK"])
        self.local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        self.world_size = int(os.environ["WORLD_SIZE"])
        self.attempt = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
        if torch.cuda.is_available():
            self.device = torch.device("cuda", self.local_rank)
            torch.cuda.set_device(self.device)
        else:
            self.device = torch.device("cpu")
        if not dist.is_initialized():
            dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo")
        self._stop = False
        signal.signal(signal.SIGTERM, self._on_terminate)

    def _on_terminate(self, number: int, frame: FrameType | None) -> None:
        self._stop = True

    def report(self, metrics: Mapping[str, float], step: int) -> None:
        """Nothing: the engine's own ``metrics.jsonl`` is the record."""

    def checkpoint_saved(self, folder: Path, step: int) -> None:
        """Nothing: the folder is the record."""

    def stop_requested(self) -> bool:
        """Whether SIGTERM has come."""
        return self._stop

    def close(self) -> None:
        """Leave the process group, and the environment as it was: what this process starts later is not its rank."""
        if dist.is_initialized():
            dist.destroy_process_group()
        for name in self._alone:
            os.environ.pop(name, None)


def on_rank_zero(runtime: Runtime, action: Callable[[], T]) -> T:
    """What ``action`` gives on rank 0, on every rank; an error of ours is raised on every rank too."""
    result: T | None = None
    problem: MedformerError | None = None
    if runtime.rank == 0:
        try:
            result = action()
        except MedformerError as error:
            problem = error
    outcome = [result, problem]
    dist.broadcast_object_list(outcome)
    if isinstance(outcome[1], MedformerError):
        raise outcome[1]
    return cast(T, outcome[0])


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
