"""The process that holds Ray for a run: it starts or attaches, sees that the workers fit, runs them, and tells how.

It ends, with all that it has started, when the process of the user does or closes the connection.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from cluster import defaults
from cluster.autoscaler import can_grow
from cluster.capacity import Share, described, free_machines, machines, room, shared_out, shortage, wanted
from cluster.errors import ClusterError
from cluster.room import own_groups
from cluster.session import end_session
from cluster.store import first_line
from cluster.worker_group import Driver, Ended, News, Placed, Waiting, WorkerGroup
from data_shards.support.errors import MedformerError

_LOOK_S = 1.0
_MOMENT = 3


def main(descriptor: int) -> None:
    """Run what comes through the connection; the last that is sent back is an :class:`Ended`.

    Args:
        descriptor: of the open connection to the process of the user.
    """
    _leave_signals_to_the_user()
    connection = Connection(descriptor)
    sys.path[:] = connection.recv()
    content = connection.recv_bytes()
    threading.Thread(target=_end_with_the_user, args=(connection,), name="end-with-user", daemon=True).start()
    defaults.apply()
    from ray import cloudpickle

    lock = threading.Lock()

    def tell(news: News) -> None:
        with lock:
            connection.send_bytes(cloudpickle.dumps(news))

    try:
        body, group, out = pickle.loads(content)
        ended = Ended(value=_run(body, group, out, tell))
    except MedformerError as error:
        ended = Ended(error=error)
    except Exception as error:  # a fault of Ray or of ours: told in one line, with its traceback in the terminal
        traceback.print_exc()
        ended = Ended(error=ClusterError(f"Ray could not run the workers: {type(error).__name__}: {first_line(error)}"))
    tell(ended)


def _run(body: Callable[..., Any] | Driver, group: WorkerGroup, out: Path, tell: Callable[[News], None]) -> Any:
    from cluster.ray_cluster import connected
    from cluster.ray_trainer import train

    name = f"Ray cluster {group.address}" if group.address else "this machine"
    tell(Waiting("ray", f"{name} to answer" if group.address else "Ray to start"))
    with connected(group):
        _leave_signals_to_the_user()  # Ray has set handlers of its own
        _wait_for_machines(name, group, tell)
        if isinstance(body, Driver):
            tell(Placed())
            return body.drive()
        share = _share(group)
        with _watched(group, share, tell):
            return train(body, group, share, out)


def _share(group: WorkerGroup) -> Share:
    return shared_out(
        machines(), group.workers, threads=group.threads_per_worker, gpus=group.gpus_per_worker, least=group.least
    )


def _wait_for_machines(name: str, group: WorkerGroup, tell: Callable[[News], None]) -> None:
    """Return when the cluster holds the workers, or has an autoscaler, which only acts on what is asked for.

    Raises:
        ClusterError: it does not hold them, with both numbers.
    """
    deadline_s = time.monotonic() + group.wait_s
    while True:
        there = machines()
        share = _share(group)
        lack = shortage(there, group.least, share)
        if lack is None or can_grow():
            return
        if time.monotonic() >= deadline_s:
            raise ClusterError(
                f"{name}: {lack}; lower cluster.workers, cluster.threads_per_worker or cluster.gpus_per_worker, or "
                "give cluster.wait_s when machines are still to join"
            )
        tell(Waiting("machines", f"machines to join {name}: {lack}"))
        time.sleep(_LOOK_S)


@contextmanager
def _watched(group: WorkerGroup, share: Share, tell: Callable[[News], None]) -> Iterator[None]:
    """Tell whether the workers have their places or wait for them, also when lost ones are replaced."""
    import ray

    if ray.util.client.ray.is_connected():  # ray://HOST:PORT, through which the state of a cluster is not to be had
        tell(Placed())
        yield
        return
    ended = threading.Event()

    def look() -> None:
        last: News | None = None
        without = 0
        while not ended.wait(_LOOK_S):
            news = None
            with suppress(Exception):  # a head that does not answer now is asked again
                news = _places(group, share)
                # Workers that are replaced have no places for a moment; those whose number may change ask for none
                # before there is room.
                without = without + 1 if news is None else 0
                if group.elastic and without > _MOMENT and room(free_machines(), share) < group.least:
                    news = _waiting(group, share)
            if news is not None and news != last:
                tell(news)
                last = news

    thread = threading.Thread(target=look, name="places", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _places(group: WorkerGroup, share: Share) -> News | None:
    """Whether the placement group of this job is there; None when there is none now."""
    from ray.core.generated.gcs_pb2 import PlacementGroupTableData

    states = {found.state for found in own_groups()}
    if PlacementGroupTableData.CREATED in states:
        return Placed()
    if not states - {PlacementGroupTableData.REMOVED}:
        return None
    return _waiting(group, share)


def _waiting(group: WorkerGroup, share: Share) -> Waiting:
    return Waiting(
        "machines",
        f"{wanted(group.least, share)}: the cluster has {described(machines())}, and free is "
        f"{described(free_machines())}",
    )


def _leave_signals_to_the_user() -> None:
    """The process of the user decides what a signal means; handlers, unlike SIG_IGN, are not inherited."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)


def _end_with_the_user(connection: Connection) -> None:
    """End this session when the connection closes: nothing else ever comes through it."""
    try:
        connection.recv_bytes()
    except (EOFError, OSError):
        end_session(os.getpid())
        os._exit(1)
