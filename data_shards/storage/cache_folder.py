"""What lies in a cache folder: complete files, beginnings of files, and how room is made.

The names say everything, so nothing else has to be kept in step: ``<sha256>.<bytes>.file`` is complete and verified,
``<sha256>.<bytes>.partial`` is the beginning of one. The time of last use is the modification time. A partial file that
is locked is being fetched and counts with its whole size; one that is not, with what is there.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data_shards.storage import locks
from data_shards.storage.base import StoredFile

_NAME = re.compile(r"([0-9a-f]{64})\.([0-9]{1,18})\.(file|partial)")


@dataclass(frozen=True)
class CachedFile:
    """One of the cache's own files.

    Attributes:
        path: where it is.
        complete: whether it is a whole file.
        whole_bytes: its size when it is complete, as its name says.
        bytes: what is on the disk.
        used: time of last use, nanoseconds.
    """

    path: Path
    complete: bool
    whole_bytes: int
    bytes: int
    used: int


def path_of(folder: Path, file: StoredFile, *, complete: bool) -> Path:
    """Where ``file`` lies. The key is the content, so datasets with equal names of shards do not meet."""
    return folder / f"{file.sha256}.{file.size}.{'file' if complete else 'partial'}"


def listing(folder: Path) -> Iterator[CachedFile]:
    """The cache's own files; whatever else lies in the folder is somebody's and is left alone."""
    with os.scandir(folder) as entries:
        for entry in entries:
            match = _NAME.fullmatch(entry.name)
            # Another process may rename or drop a file that is listed here.
            with contextlib.suppress(FileNotFoundError):
                if match is not None and entry.is_file(follow_symlinks=False):
                    state = entry.stat(follow_symlinks=False)
                    yield CachedFile(
                        Path(entry.path), match[3] == "file", int(match[2]), state.st_size, state.st_mtime_ns
                    )


def make_room(folder: Path, needed: int, limit: int, spare: Path) -> bool:
    """Delete files that nobody uses, least recently used first, until ``needed`` bytes more stay within ``limit``.

    Nothing is deleted when that is not enough. The caller holds the lock of the folder and the one of ``spare``, the
    file that the room is for.

    Returns:
        Whether there is room now.
    """
    files = [file for file in listing(folder) if file.path != spare]
    held: list[tuple[int, CachedFile]] = []
    try:
        total = 0
        for file in files:
            if file.complete:
                total += file.bytes
            elif (descriptor := _taken(file)) is not None:
                held.append((descriptor, file))
                total += file.bytes
            else:
                total += file.whole_bytes
        excess = total + needed - limit
        idle = {file.path for _, file in held}
        victims: list[CachedFile] = []
        for file in sorted(files, key=lambda file: file.used):
            if excess <= 0:
                break
            if file.complete and (descriptor := _taken(file)) is not None:
                held.append((descriptor, file))
            elif file.path not in idle:
                continue
            victims.append(file)
            excess -= file.bytes
        if excess > 0:
            return False
        for file in victims:
            file.path.unlink(missing_ok=True)
        return True
    finally:
        for descriptor, _ in held:
            locks.close(descriptor)


def _taken(file: CachedFile) -> int | None:
    """A descriptor that has ``file`` locked, or None when somebody uses it."""
    try:
        descriptor = os.open(file.path, os.O_RDWR)
    except FileNotFoundError:
        return None
    if locks.try_lock(descriptor, shared=False):
        return descriptor
    locks.close(descriptor)
    return None
