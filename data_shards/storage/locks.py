"""File locks between the processes of one node.

All are ``flock`` locks (flock(2)): they belong to an open file description, so threads exclude each other as processes
do, and the kernel drops them when the last descriptor is closed, however a process ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

# Descriptors of this process that hold an exclusive lock. A forked child gets copies, and through them would go on
# holding the locks of a parent that has died; it closes its copies.
_exclusive: set[int] = set()


def try_lock(descriptor: int, *, shared: bool) -> bool:
    """Lock an open file without waiting, or change the lock it has; False when others hold it."""
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    if shared:
        _exclusive.discard(descriptor)
    else:
        _exclusive.add(descriptor)
    return True


def close(descriptor: int) -> None:
    """Close a locked file; its lock goes with it."""
    _exclusive.discard(descriptor)
    os.close(descriptor)


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file ``path``, made when absent; waits for it. For work of milliseconds."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    _exclusive.add(descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        # A copy in a child that was forked just now must not keep it locked.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        close(descriptor)


def is_at(descriptor: int, path: Path) -> bool:
    """Whether ``path`` still names the open file: it may have been evicted or replaced before it was locked."""
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(descriptor), there)


def _in_child() -> None:
    for descriptor in _exclusive:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _exclusive.clear()


os.register_at_fork(after_in_child=_in_child)
