"""Processes of tests: whatever becomes of the test, none of them stays."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}


@contextlib.contextmanager
def running(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """A process in a group of its own; at the end of the block the whole group is killed, stopped processes too."""
    process = subprocess.Popen(command, env=ENVIRONMENT, start_new_session=True, **options)
    try:
        yield process
    finally:
        kill_group(process)


def kill_group(process: subprocess.Popen[Any]) -> None:
    """Kill a process that leads its group, and all others of the group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def forked() -> set[int]:
    """Living children of the fork server of this process."""
    server = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    return {pid for pid, (state, parent, _) in _stats().items() if parent == server and state != "Z"}


def session_of(leader: int) -> set[int]:
    """Living processes of the session that a process of :func:`running` has begun, itself included."""
    return {pid for pid, (state, _, session) in _stats().items() if session == leader and state != "Z"}


def until(condition: Callable[[], bool], limit_s: float = 60.0) -> bool:
    """Whether something that happens in another process has happened within ``limit_s``."""
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _stats() -> dict[int, tuple[str, int, int]]:
    """State, parent and session of every process."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            state, parent, _, session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
        except OSError:  # it has ended
            continue
        found[int(entry.name)] = state, int(parent), int(session)
    return found
