"""Temporary folders that go with their process, or after ``kill -9`` with the next one that makes such a folder.

The folder holds a file that is locked as long as the process lives, so that nobody removes what another one uses.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

from data_shards.storage import locks

_LOCK_NAME = "in-use"
# Folders are made under this name, and get their own once they are locked.
_NEW_PREFIX = ".medformer-"
# From making a folder to its lock takes microseconds; one that is unlocked this long after has no maker any more.
_ABANDONED_S = 600.0


def scratch_for(owner: object, prefix: str) -> tuple[Path, weakref.finalize]:
    """A temporary folder that is removed with ``owner``, and what removes it earlier.

    It lies where :mod:`tempfile` puts it (``$TMPDIR``). Folders of ended processes with the same prefix are removed.

    Args:
        owner: the object whose folder it is.
        prefix: the start of its name.

    Raises:
        OSError: it cannot be made.
    """
    _remove_abandoned(prefix)
    folder, descriptor = _new_folder(prefix)
    return folder, weakref.finalize(owner, _remove, folder, descriptor, os.getpid())


@contextlib.contextmanager
def scratch_folder(prefix: str) -> Iterator[Path]:
    """A temporary folder for a block, see :func:`scratch_for`."""

    class Block:
        """Lives as long as the block."""

    block = Block()
    folder, remove = scratch_for(block, prefix)
    try:
        yield folder
    finally:
        remove()


def _new_folder(prefix: str) -> tuple[Path, int]:
    """A temporary folder, and a descriptor that holds the lock by which others see that it is in use."""
    made = Path(tempfile.mkdtemp(prefix=_NEW_PREFIX))
    descriptor = os.open(made / _LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
    locks.try_lock(descriptor, shared=False)
    folder = made.with_name(prefix + made.name.removeprefix(_NEW_PREFIX))
    made.rename(folder)  # has the name that others look for only now that it is locked
    return folder, descriptor


def _remove(folder: Path, descriptor: int, owner: int) -> None:
    if os.getpid() == owner:  # not a forked copy
        shutil.rmtree(folder, ignore_errors=True)
        locks.close(descriptor)


def _remove_abandoned(prefix: str) -> None:
    """Remove what processes that were killed have left, also while they made a folder."""
    place = Path(tempfile.gettempdir())
    for folder in place.glob(f"{prefix}*"):
        _remove_unlocked(folder)
    for folder in place.glob(f"{_NEW_PREFIX}*"):
        with contextlib.suppress(OSError):  # somebody else's, or renamed by now
            names = {path.name for path in folder.iterdir()}
            if names <= {_LOCK_NAME} and time.time() - folder.stat().st_mtime > _ABANDONED_S:
                # Its maker may have been killed before it made the file.
                os.close(os.open(folder / _LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600))
                _remove_unlocked(folder)


def _remove_unlocked(folder: Path) -> None:
    with contextlib.suppress(OSError):  # somebody else's, or gone already
        descriptor = os.open(folder / _LOCK_NAME, os.O_RDWR)
        if locks.try_lock(descriptor, shared=False):
            shutil.rmtree(folder, ignore_errors=True)
        locks.close(descriptor)
