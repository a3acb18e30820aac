"""Running one function on a group of workers with Ray Train, from a process that Ray cannot hold up.

Ray lives in a process of its own (:mod:`cluster.ray_process`): while it starts, attaches or waits for machines it
does not listen to signals, and a start that is interrupted takes its process down with it. The process of the user
stays free to answer Ctrl-C and SIGTERM at once, and ends the other one with all that it has started.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from cluster import defaults
from cluster.errors import ClusterError
from cluster.interruptions import Interruptions
from cluster.job_address import address_of_job
from cluster.ray_runtime import FAILURE_FILE, STOP_FILE, RayRuntime, read_attempt
from cluster.session import end_session
from cluster.worker_group import Driver, Ended, News, Placed, Waiting, WorkerGroup

_ROOT = Path(__file__).resolve().parent.parent
# Without -P the current folder could hide packages; what the user has on the path comes through the connection.
_START = "import sys; sys.path.insert(0, sys.argv[2]); from cluster.ray_process import main; main(int(sys.argv[1]))"
_LISTEN_S = 0.2
_TOLD_EVERY_S = 30.0
# So long nothing is said: Ray takes its time to start, and workers that are replaced wait for a moment.
_QUIET_S = {"ray": 30.0, "machines": 3.0}
_FAREWELL_S = 5.0

Say = Callable[[str], None]


def run_on_workers(
    body: Callable[[RayRuntime], Any] | Driver,
    group: WorkerGroup,
    out: Path,
    *,
    interruptions: Interruptions | None = None,
) -> Any:
    """Call ``body`` on every worker; start all of them again when one is lost.

    ``torch.distributed`` is set up (gloo, with GPUs nccl) and the environment variables of ``torchrun`` are set
    before ``body`` is called. What is waited for is told on standard error, every 30 s.

    Args:
        body: what to run; importable by the workers, or defined in the main program. A driver is run once, beside
            them, where there is room for the workers.
        group: the workers.
        out: the folder of the run, absolute, on storage that the workers share.
        interruptions: the signal handlers of the caller; None for some of our own.

    Returns:
        What ``body`` returned on rank 0.

    Raises:
        MedformerError: an error of ours that ``body`` raised on any rank, as it was; it ends the run at once.
        ClusterError: the cluster is not there, or cannot hold the workers (both numbers are told), or the run failed
            more than ``max_failures`` times; ``failure.txt`` in ``out`` then has the traceback.
        KeyboardInterrupt: Ctrl-C. The workers are ended.
        StopAsked: SIGTERM while nothing was trained; later it makes :meth:`RayRuntime.stop_requested` true.
    """
    (out / FAILURE_FILE).unlink(missing_ok=True)
    group = settled(group)
    with contextlib.ExitStack() as stack:
        if interruptions is None:
            interruptions = stack.enter_context(Interruptions())
        stack.enter_context(interruptions.noted())
        connection, process = stack.enter_context(_ray_process(body, group, out))
        return _attend(connection, process, out, interruptions)


def _attend(
    connection: Connection, process: subprocess.Popen[bytes], out: Path, interruptions: Interruptions
) -> object:
    """Listen to Ray's process and to signals until the run is over; returns its value."""
    news: News = Waiting("ray", "Ray to start")
    told = _Told()
    attempt = read_attempt(out)
    while not isinstance(news, Ended):
        if isinstance(news, Waiting):
            attempt = read_attempt(out)
        told.of(news)
        if (number := interruptions.take()) is not None:
            trains = isinstance(news, Placed) and read_attempt(out) != attempt
            if not trains or number != signal.SIGTERM:
                interruptions.end(number)
            (out / STOP_FILE).touch()
        if connection.poll(_LISTEN_S):
            try:
                news = pickle.loads(connection.recv_bytes())
            except EOFError:
                status = process.wait(_FAREWELL_S)
                how = f"by signal {-status}" if status < 0 else f"with status {status}"
                raise ClusterError(f"the process that runs Ray was ended {how}; is there enough memory?") from None
    if news.error is not None:
        raise news.error
    return news.value


class _Told:
    """Says what is waited for: not at once, then every 30 s."""

    def __init__(self) -> None:
        self._on: str | None = None
        self._due_s = 0.0

    def of(self, news: News) -> None:
        now_s = time.monotonic()
        on = news.on if isinstance(news, Waiting) else None
        if on is not None and on != self._on:
            self._due_s = now_s + _QUIET_S[on]
        self._on = on
        if isinstance(news, Waiting) and now_s >= self._due_s:
            print(f"waiting for {news.reason}", file=sys.stderr, flush=True)
            self._due_s = now_s + _TOLD_EVERY_S


@contextlib.contextmanager
def _ray_process(
    body: Callable[[RayRuntime], Any] | Driver, group: WorkerGroup, out: Path
) -> Iterator[tuple[Connection, subprocess.Popen[bytes]]]:
    """Ray's process in a session of its own, which Ctrl-C on the terminal does not reach; nothing of it is left."""
    from ray import cloudpickle  # the one that sends functions to workers too: by value when the main program has them

    ours, theirs = Pipe()
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", _START, str(theirs.fileno()), str(_ROOT)],
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        theirs.close()
        with contextlib.suppress(BrokenPipeError):  # it has ended, which whoever listens is told
            ours.send(sys.path)
            ours.send_bytes(cloudpickle.dumps((body, group, out)))
        yield ours, process
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_FAREWELL_S)
    finally:
        ours.close()
        process.kill()
        process.wait()
        end_session(process.pid)


def settled(group: WorkerGroup) -> WorkerGroup:
    """The group with its cluster decided, and for a Ray of our own with its GPUs.

    Raises:
        ClusterError: this machine, where no other is named, does not hold the workers.
    """
    defaults.apply()
    stated = group.address or address_of_job(os.environ) or os.environ.get("RAY_ADDRESS")
    group = replace(group, address=stated or _address_in_use())
    if group.address is not None:
        return group
    return on_this_machine(group, gpus=torch.cuda.device_count(), cpus=os.cpu_count() or 1)


def _address_in_use() -> str | None:
    """The cluster that this process is connected to already, as in a notebook."""
    import ray

    return str(ray.get_runtime_context().gcs_address) if ray.is_initialized() else None


def on_this_machine(group: WorkerGroup, *, gpus: int, cpus: int) -> WorkerGroup:
    """The group with its GPUs decided, for a Ray of our own: Ray also counts those that torch cannot use.

    Of a range of workers there are as many as this machine holds, for it does not grow. A worker may have more threads
    than there are CPUs for it, but not less than a CPU.

    Args:
        group: the workers.
        gpus: how many torch can use here.
        cpus: how many this machine has.

    Raises:
        ClusterError: more are asked for.
    """
    asked = group.least * (group.gpus_per_worker or 0)
    if asked > gpus:
        raise ClusterError(f"{asked} GPUs asked for, this machine has {gpus}")
    if group.least > cpus:
        raise ClusterError(
            f"{group.least} workers need as many CPUs, this machine has {cpus}; lower cluster.workers, or give "
            "cluster.address"
        )
    if group.gpus_per_worker is None:
        group = replace(group, gpus_per_worker=int(gpus >= group.least))
    most = min(cpus, gpus // group.gpus_per_worker if group.gpus_per_worker else cpus)
    return replace(group, workers=max(group.least, min(group.workers, most)))
