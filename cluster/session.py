"""The processes of a session (``setsid``): all that one process has started, also what its children started."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

_PATIENCE_S = 3.0


def members(session: int) -> list[int]:
    """Process ids of a session, but for this process and those that have ended."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended
            state, _, _, its_session, *_ = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(its_session) == session and state != "Z" and int(folder.name) != os.getpid():
                found.append(int(folder.name))
    return found


def end_session(session: int) -> None:
    """Kill every process of a session but this one, and wait until they are gone."""
    deadline = time.monotonic() + _PATIENCE_S
    while (alive := members(session)) and time.monotonic() < deadline:
        for pid in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
