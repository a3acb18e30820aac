"""Watches the workers from Ray Train's controller: who trains where, which of them hangs, and why a group ended."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
from ray.train import WorkerGroupError
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError, WorkerHealthCheckTimeoutError
from ray.train.v2._internal.execution.callback import WorkerGroupCallback

from cluster.beats import Beat, beat
from cluster.errors import ClusterError
from cluster.ray_runtime import WORKERS_FILE, read_attempt
from cluster.restarts import note
from cluster.store import first_line
from data_shards.support.errors import MedformerError
from data_shards.support.files import write_json

# What gloo says in those that are left, often before Ray knows of the loss.
_GONE = re.compile(r"Connection (reset|closed) by peer|Connection refused")
_ASK_S = 2.0
_WRITE_S = 5.0


class WorkerWatch(WorkerGroupCallback):
    """Asks every worker for its signs of life, beside Ray's own question whether it answers at all.

    Ray ends a worker whose process answers nothing (stopped, or its machine is), after
    ``RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S``. It does not see one that answers while its training is stuck; gloo
    and nccl only tell that others have waited too long. What is found is told with rank, machine, process and step.

    Args:
        out: the folder of the run.
        hang_after_s: so long Ray waits for an answer; for what is told.
        stuck_after_s: so long the training may stand still.
    """

    def __init__(self, out: Path, hang_after_s: float, stuck_after_s: float) -> None:
        self._out, self._hang_after_s, self._stuck_after_s = out, hang_after_s, stuck_after_s
        self._clear()

    def _clear(self) -> None:
        self._workers: list[Any] = []
        self._beats: dict[int, Beat] = {}
        self._pending: dict[Any, int] = {}
        self._asked_s = self._written_s = float("-inf")

    def after_worker_group_training_start(self, worker_group: Any) -> None:
        """Take note of who they are."""
        self._clear()
        self._workers = worker_group.get_workers()

    def before_worker_group_shutdown(self, worker_group: Any) -> None:
        """They are no more."""
        self._clear()

    def after_worker_group_poll_status(self, worker_group_status: Any) -> None:
        """Look at what is known of them; called several times a second.

        Raises:
            WorkerGroupError: the training is stuck; Ray then starts the workers again, or gives up.
        """
        if not self._workers:
            return
        if errors := worker_group_status.errors:
            note(self._out, read_attempt(self._out), self._reason(errors))
            return
        self._listen()
        if worker_group_status.finished:
            return
        if stuck := [rank for rank, found in self._beats.items() if self._is_stuck(found)]:
            reason = f"the training has stood still for {self._stuck_after_s:g} s: {self._places()}"
            note(self._out, read_attempt(self._out), reason)
            raise WorkerGroupError(reason, {rank: ClusterError(reason) for rank in stuck})

    def _is_stuck(self, found: Beat) -> bool:
        return not found.waits and found.idle_s > self._stuck_after_s

    def _listen(self) -> None:
        now_s = time.monotonic()
        if self._pending:
            done, _ = ray.wait(list(self._pending), num_returns=len(self._pending), timeout=0)
            for reference in done:
                rank = self._pending.pop(reference)
                try:
                    found = ray.get(reference)
                except ray.exceptions.RayError:  # it was lost, which Ray's own question tells too
                    continue
                if found is not None:
                    self._beats[rank] = found
        if now_s - self._asked_s >= _ASK_S:
            self._asked_s = now_s
            waiting = set(self._pending.values())
            for rank, worker in enumerate(self._workers):
                if rank not in waiting:
                    self._pending[worker.execute_async(beat)] = rank
        if now_s - self._written_s >= _WRITE_S and len(self._beats) == len(self._workers):
            self._written_s = now_s
            self._write()

    def _write(self) -> None:
        """Who trains where, for people and for ``jobs watch``."""
        lines = [
            {"rank": rank, "host": worker.metadata.hostname, "node": worker.metadata.node_id,
             "pid": worker.metadata.pid, **asdict(self._beats[rank])}
            for rank, worker in enumerate(self._workers)
        ]  # fmt: skip
        with suppress(MedformerError):  # a full disk is told by the checkpoint that does not fit
            write_json(self._out / WORKERS_FILE, {"attempt": read_attempt(self._out), "workers": lines})

    def _reason(self, errors: Mapping[int, Exception]) -> str:
        """Why the group ends, in one line: of several errors the one that the others follow from."""
        for kind in (WorkerHealthCheckTimeoutError, WorkerHealthCheckFailedError, Exception):
            for rank in sorted(errors):
                if not isinstance(errors[rank], kind):
                    continue
                if kind is WorkerHealthCheckTimeoutError:
                    return f"{self._name(rank)} answered nothing for {self._hang_after_s:g} s"
                if kind is WorkerHealthCheckFailedError:
                    return f"{self._name(rank)} was lost"
                if _GONE.search(str(errors[rank])):
                    return f"{self._name(rank)} lost the connection to another worker"
                return f"{self._name(rank)}: {type(errors[rank]).__name__}: {first_line(errors[rank])}"
        raise AssertionError("no error")

    def _name(self, rank: int) -> str:
        data = self._workers[rank].metadata
        found = self._beats.get(rank)
        step = "" if found is None or found.step is None else f", in step {found.step} when last heard of"
        return f"rank {rank} (process {data.pid} on {data.hostname}, node {data.node_id[:8]}{step})"

    def _places(self) -> str:
        """Where every worker is, the one that is most behind first: the others wait for it."""
        order = sorted(self._beats, key=lambda rank: (self._beats[rank].begun, -self._beats[rank].idle_s))
        return "; ".join(f"{self._name(rank)} at {self._beats[rank].where}" for rank in order)
