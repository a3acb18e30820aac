"""Starting a Ray of our own on this machine, or attaching to one that runs, and leaving nothing behind."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from cluster.errors import TOKEN_NEEDED, ClusterError
from cluster.ray_token import keep_private
from cluster.session import end_session
from cluster.store import first_line
from cluster.worker_group import WorkerGroup

# The packages of this source tree, wherever it is: workers import them too.
_ROOT = Path(__file__).resolve().parent.parent
_PACKAGES = ("data_shards", "pretrain", "finetune", "cluster", "medformer")
# Datasets do not go through Ray's object store; its default takes 30 % of the memory.
_OBJECT_STORE_BYTES = 128 << 20
_PROBE_TIMEOUT_S = 10.0
# For the head of a Ray of our own to tell its port. Default 30 s, too little on a machine that is busy.
_HEAD_WAIT_S = "120"


@contextlib.contextmanager
def connected(group: WorkerGroup) -> Iterator[None]:
    """Ray, for the length of a block.

    Args:
        group: its ``address`` is that of a running cluster (``auto``, ``HOST:PORT`` or ``ray://HOST:PORT``); None is a
            Ray of our own on this machine that ends with the block. It gives as many CPUs as the workers need, even if
            the machine has fewer cores.

    Raises:
        ClusterError: the cluster does not answer, or Ray does not start.
    """
    import ray

    try:
        if group.address is not None:
            _attach(group.address)
        else:
            _start(group)
        yield
    finally:
        ray.shutdown()


def _start(group: WorkerGroup) -> None:
    """Start a Ray of our own, once more when that fails: a raylet has 30 s to answer, which no setting changes."""
    import ray

    keep_private()
    os.environ.setdefault("RAY_gcs_server_port_wait_time_s", _HEAD_WAIT_S)  # here alone: attaching waits for it, too
    try:
        _start_once(group)
    except Exception:  # Ray raises plain ones
        ray.shutdown()
        end_session(os.getpid())  # what the first try has left
        try:
            _start_once(group)
        except Exception as error:
            raise ClusterError(
                f"Ray did not start on this machine, tried twice: {first_line(error).removesuffix('.')}; mostly the "
                "machine is too busy or too full: try again when less runs on it, and see that /tmp has room"
            ) from error


def _start_once(group: WorkerGroup) -> None:
    import ray

    ray.init(
        address="local",
        num_cpus=max(group.workers * (group.threads_per_worker or 1), os.cpu_count() or 1),
        object_store_memory=_OBJECT_STORE_BYTES,
        include_dashboard=group.dashboard,
        dashboard_host="127.0.0.1",
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": {"PYTHONPATH": _python_path()}},
    )


def _attach(address: str) -> None:
    import ray

    _probe(address)
    # An installed package is on every machine of a cluster; a source tree is sent along.
    packages = [] if "site-packages" in _ROOT.parts else [str(_ROOT / name) for name in _PACKAGES]
    try:
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"py_modules": packages} if packages else None,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = first_line(error)
        if "InvalidAuthToken" in str(error.__cause__):
            # Ray says so only in the middle of a traceback.
            reason = TOKEN_NEEDED
        raise ClusterError(f"Ray cluster {address}: {reason}") from error


def _probe(address: str) -> None:
    """Ask for a sign of life: Ray itself tries for five minutes before it says that nobody is there."""
    host, separator, port = address.removeprefix("ray://").rpartition(":")
    if not separator or not port.isdecimal():
        return  # `auto`, or a form that Ray explains better.
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PROBE_TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(f"Ray cluster {address} does not answer: {error}") from None


def _python_path() -> str:
    inherited = os.environ.get("PYTHONPATH")
    return f"{_ROOT}{os.pathsep}{inherited}" if inherited else str(_ROOT)
