"""Helper processes that end with the process that started them, also when that one is killed."""

from __future__ import annotations

import multiprocessing
import os
import threading
from multiprocessing import connection


def end_with_parent() -> None:
    """Call this at the start of a process of :mod:`multiprocessing`: it will not outlive the one that started it.

    A process whose parent was killed (SIGKILL, the kernel short of memory) waits for work for ever. Behind a fork
    server it cannot even see it by :func:`os.getppid`, by which the workers of torch's DataLoader would: their parent
    is the server, and the server lives as long as they do. So a thread waits for the end of the pipe that the parent
    held.
    """
    threading.Thread(target=_wait, name="end with parent", daemon=True).start()


def _wait() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
