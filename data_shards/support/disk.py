"""Telling a full disk from other faults, whichever library met it."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

FULL = os.strerror(errno.ENOSPC)
# What is left of the error number in the words of SQLite, and of libraries that pass on the text alone.
_WORDS = (FULL.lower(), "disk is full", "disk quota exceeded")
# A write that failed for want of room has filled the disk up to less than this.
_REST_BYTES = 1 << 20


def is_full_disk(error: BaseException) -> bool:
    """Whether an error, or one that it came from, is that of a disk without room, or of a quota that is used up."""
    return any(
        (isinstance(each, OSError) and each.errno in (errno.ENOSPC, errno.EDQUOT))
        or any(words in str(each).lower() for words in _WORDS)
        for each in _chain(error)
    )


def is_filled(folder: Path) -> bool:
    """Whether next to nothing is free where ``folder`` lies: for errors of a writer that does not say why."""
    standing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    return shutil.disk_usage(standing).free < _REST_BYTES


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
