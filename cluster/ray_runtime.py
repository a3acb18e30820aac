"""What the training engine sees of its surroundings when it runs in a worker of Ray Train."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import torch

from cluster import beats
from cluster.errors import ClusterError
from cluster.restarts import note
from data_shards.support.files import write_atomic

STOP_FILE = "stop"
GROW_FILE = "grow"
"""Lies in the run's folder from when more workers are to join until a checkpoint is written for them."""
ATTEMPT_FILE = "attempt"
FAILURE_FILE = "failure.txt"
WORKERS_FILE = "workers.json"
"""Who trains where, from the watch."""
_LOOK_S = 1.0
_STOP_CHECK_S = 2.0
_MOST_CALLS_BETWEEN_CHECKS = 1000


class RayRuntime:
    """The ``Runtime`` of :mod:`pretrain.runtime` on Ray Train.

    To be made once on every rank, in the worker's training thread, after Ray has set up ``torch.distributed``.

    Attributes:
        rank: of this worker, from 0.
        local_rank: of this worker on its machine, from 0.
        world_size: how many workers there are.
        node: number of its machine among those of the workers.
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
        self.node: int = context.get_node_rank()
        # Ray's own answer for a worker without GPUs is the first one that torch sees.
        self.device: torch.device = get_device() if ray.get_gpu_ids() else torch.device("cpu")
        self.attempt: int = broadcast_from_rank_zero(_next_attempt(out) if self.rank == 0 else None)
        self._out, self._stop_file, self._grow_file = out, out / STOP_FILE, out / GROW_FILE
        self._asked = self._growing = self._preempted = False
        self._beats = beats.start(self.device)
        self._calls_left = 1
        self._longest_s = 0.0
        self._last_call_s = time.monotonic()
        self._last_look_s = -_LOOK_S

    def begun_after(self, step: int) -> None:
        """Take note of the step of the checkpoint from which this worker goes on."""
        self._beats.at_step(step)

    def report(self, metrics: Mapping[str, float], step: int) -> None:
        """A sign of life; the engine's ``metrics.jsonl`` is followed by the process that started the training."""
        self._beats.at_step(step)

    def checkpoint_saved(self, folder: Path, step: int) -> None:
        """Tell Ray Train how far the run is; every rank calls this for every checkpoint.

        The checkpoint itself is complete in shared storage already, so that Ray has nothing to copy, and nothing that
        it could restore too early.
        """
        from ray import train

        self._beats.moved()
        train.report({"step": step, "checkpoint": str(folder)})

    def stop_requested(self) -> bool:
        """Whether a machine is about to be taken away, or a file ``stop`` or ``grow`` lies in the run's folder.

        Every rank calls this equally often. Rank 0 looks for the files, once a second at most, and alone says so: the
        engine lets all ranks stop with it. Of preemptions Ray tells only ranks that all ask together. They do so about
        every two seconds, after a number of calls that rank 0 chooses by the longest time between two of them; so the
        answer takes longer only while calls become more than twice as slow. In between a call costs nothing.
        """
        self._beats.next_step()
        now = time.monotonic()
        self._longest_s = max(self._longest_s, now - self._last_call_s)
        self._last_call_s = now
        if self.rank == 0 and now - self._last_look_s >= _LOOK_S:
            self._last_look_s = now
            self._asked = self._asked or self._stop_file.exists()
            self._growing = self._growing or self._grow_file.exists()
            newest = read_attempt(self._out)
            if newest is not None and newest > self.attempt:
                # A driver that was taken for lost and lives: two starts must not write into one folder.
                raise ClusterError(f"{self._out}: workers were started again (attempt {newest}); these ones end")
        self._calls_left -= 1
        if self._calls_left <= 0 and not self._preempted:
            self._confer()
        return self._asked or self._growing or self._preempted

    def _confer(self) -> None:
        from ray import train
        from ray.train.collective import broadcast_from_rank_zero

        self._preempted = train.get_preemption_info() is not None
        calls = max(1, min(_MOST_CALLS_BETWEEN_CHECKS, int(_STOP_CHECK_S / max(self._longest_s, 1e-9))))
        self._calls_left = broadcast_from_rank_zero(calls if self.rank == 0 else None)
        self._longest_s = 0.0
        self._last_call_s = time.monotonic()

    def wait_for_others(self) -> None:
        """Do not come back from a stop that is none: Ray ends this worker, and starts the group elsewhere or larger.

        So it is after a preemption, and when more workers are to join; that the checkpoint for them is written is said
        by taking the file away. A worker that returned would count as finished, and the run with it.
        """
        from ray.train.collective import broadcast_from_rank_zero

        if self._preempted:
            if self.rank == 0:
                note(self._out, self.attempt, "a machine was announced to be taken away")
        else:
            goes_on = self._growing and not self._asked
            if not broadcast_from_rank_zero(goes_on if self.rank == 0 else None):
                return
            self._grow_file.unlink(missing_ok=True)
        self._beats.pause()
        while True:
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
