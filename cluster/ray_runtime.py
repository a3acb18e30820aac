"""What the training engine sees of its surroundings when it runs in a worker of Ray Train."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import torch

from data_shards.support.files import write_atomic

STOP_FILE = "stop"
ATTEMPT_FILE = "attempt"
FAILURE_FILE = "failure.txt"
_STOP_CHECK_S = 2.0
_MOST_CALLS_BETWEEN_CHECKS = 1000


class RayRuntime:
    """The ``Runtime`` of :mod:`pretrain.runtime` on Ray Train.

    To be made once on every rank, in the worker's training thread, after Ray has set up ``torch.distributed``.

    Attributes:
        rank: of this worker, from 0.
        local_rank: of this worker on its machine, from 0.
        world_size: how many workers there are.
        attempt: 0 the first time that workers start in the run's folder, 1 after the first restart, and so on; the
            same on every rank.
        device: the GPU that Ray gave this worker; the CPU when it was given none, even where the machine has some.
    """

    def __init__(self, out: Path) -> None:
        """Join the other workers.

        Args:
            out: the folder of the run, on storage that every worker shares.
        """
        import ray
        from ray import train
        from ray.train.collective import broadcast_from_rank_zero
        from ray.train.torch import get_device

        context = train.get_context()
        self.rank: int = context.get_world_rank()
        self.local_rank: int = context.get_local_rank()
        self.world_size: int = context.get_world_size()
        # Ray's own answer for a worker without GPUs is the first one that torch sees.
        self.device: torch.device = get_device() if ray.get_gpu_ids() else torch.device("cpu")
        self.attempt: int = broadcast_from_rank_zero(_next_attempt(out) if self.rank == 0 else None)
        self._stop_file = out / STOP_FILE
        self._stopping = self._preempted = False
        self._calls_left = 1
        self._calls_between_checks = 1
        self._last_check = time.monotonic()

    def report(self, metrics: Mapping[str, float], step: int) -> None:
        """Nothing to do: the engine's ``metrics.jsonl`` is followed by the process that started the training."""

    def checkpoint_saved(self, folder: Path, step: int) -> None:
        """Tell Ray Train how far the run is; every rank calls this for every checkpoint.

        The checkpoint itself is complete in shared storage already, so that Ray has nothing to copy, and nothing that
        it could restore too early.
        """
        from ray import train

        train.report({"step": step, "checkpoint": str(folder)})

    def stop_requested(self) -> bool:
        """Whether a machine is about to be taken away, or a file ``stop`` lies in the run's folder.

        Every rank calls this equally often and gets the same answer. The ranks confer about every two seconds, after
        a number of calls that rank 0 chooses from the time between calls; in between the call costs nothing.
        """
        self._calls_left -= 1
        if self._calls_left > 0 or self._stopping:
            return self._stopping
        from ray import train
        from ray.train.collective import broadcast_from_rank_zero

        now = time.monotonic()
        seconds_per_call = (now - self._last_check) / self._calls_between_checks
        wanted = min(_MOST_CALLS_BETWEEN_CHECKS, max(1, int(_STOP_CHECK_S / max(seconds_per_call, 1e-9))))
        self._preempted = train.get_preemption_info() is not None
        asked, self._calls_between_checks = broadcast_from_rank_zero(
            (self._stop_file.exists(), wanted) if self.rank == 0 else None
        )
        self._stopping = self._preempted or asked
        self._calls_left = self._calls_between_checks
        self._last_check = now
        return self._stopping

    def wait_if_preempted(self) -> None:
        """Do not come back from a stop for a preemption: Ray ends this worker and starts the group elsewhere.

        A worker that returned would count as finished, and the run with it.
        """
        while self._preempted:
            time.sleep(1)


def read_attempt(out: Path) -> int | None:
    """The newest start of workers in the run's folder, or None before the first."""
    path = out / ATTEMPT_FILE
    return int(path.read_text()) if path.exists() else None


def _next_attempt(out: Path) -> int:
    """Count the starts of workers in the run's folder: a new process, or a new driver, cannot know of the others."""
    last = read_attempt(out)
    attempt = 0 if last is None else last + 1
    write_atomic(out / ATTEMPT_FILE, f"{attempt}\n")
    return attempt
