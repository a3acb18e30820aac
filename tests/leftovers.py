"""Processes that outlive the tests that started them: they are ended and named, so that no run waits for them."""

from __future__ import annotations

import os
import signal
import time
import uuid
from pathlib import Path

import pytest

MARK = "MEDFORMER_TEST_SESSION"
# multiprocessing's own, which end with this process.
_HELPERS = ("multiprocessing.forkserver", "multiprocessing.resource_tracker")
_PATIENCE_S = 10.0


def mark() -> None:
    """Give this process and all that it will start a mark to be found by."""
    os.environ.setdefault(MARK, uuid.uuid4().hex)


def running() -> dict[int, str]:
    """Command lines of the processes with the mark, but for this one and the helpers of its multiprocessing."""
    mark = f"{MARK}={os.environ[MARK]}".encode()
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark not in (entry / "environ").read_bytes().split(b"\0") or int(entry.name) == os.getpid():
                continue
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has just ended, or belongs to somebody else
            continue
        # What a fork server has forked looks as it does, but is no child of this process.
        own = parent == os.getpid() and any(helper in command for helper in _HELPERS)
        if command and not own:
            found[int(entry.name)] = command
    return found


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """End what is left after a moment of patience, and say what it was."""
    deadline = time.monotonic() + _PATIENCE_S
    while running() and time.monotonic() < deadline:
        time.sleep(0.2)
    if left := running():
        terminalreporter.section("processes that tests left behind, ended now")
        for pid, command in sorted(left.items()):
            terminalreporter.write_line(f"{pid}: {command[:200]}")
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                terminalreporter.write_line(f"{pid}: ended by itself")
