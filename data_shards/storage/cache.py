"""Copies of remote files on the disk of a node, shared by all its processes, within a number of bytes."""

from __future__ import annotations

import enum
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from data_shards.storage import locks
from data_shards.storage.base import Lease, StoredFile
from data_shards.storage.cache_folder import listing, make_room, path_of
from data_shards.support.descriptors import raise_out_of_files
from data_shards.support.errors import DataError
from data_shards.support.files import sha256_of

_LOCK_NAME = "cache.lock"
# Pause between two looks at a file that another process is fetching, or at a full cache.
_LOOK_S = (0.02, 0.25)

# Completes the file behind an open descriptor, or raises DataError.
Fetch = Callable[[int], None]


@dataclass(frozen=True)
class Cache:
    """A folder of fetched files, keyed by their SHA-256.

    The processes of a node share it without a server: each file is fetched by one of them while the others wait, a
    process that dies in the middle leaves a beginning from which the next one goes on, and a complete file appears
    under its name only when its SHA-256 is right. Room is made before a transfer by deleting the files that were not
    used for longest; one that somebody has leased is never deleted. The folder must be on a local disk: network file
    systems may not lock.

    Attributes:
        folder: where the files are; made when absent. Foreign files in it are left alone and do not count.
        limit_bytes: all files of the cache together are never larger, beginnings that grow included.
        wait_s: the longest wait for room, and for another process that makes no progress with a file.
        check: compute the SHA-256 of a file that is found in the cache before each use. Its size is always compared,
            and readers check every sample.
    """

    folder: Path
    limit_bytes: int
    wait_s: float = 600.0
    check: bool = False

    def __post_init__(self) -> None:
        if self.limit_bytes < 1:
            raise DataError(f"cache {self.folder}: a limit of {self.limit_bytes} bytes; expected at least 1")
        object.__setattr__(self, "folder", Path(self.folder))
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise_out_of_files(error)
            raise DataError(f"cache {self.folder}: cannot be made: {error.strerror or error}") from None

    def held(self, file: StoredFile) -> Lease | None:
        """The path of ``file`` when it is complete in the cache, without fetching or waiting; None otherwise."""
        try:
            return self._found(file)
        except OSError as error:
            raise_out_of_files(error)
            return None  # what is wrong with the cache is said by who needs it

    def lease(self, file: StoredFile, fetch: Fetch, what: str, *, wait: bool = True) -> Lease:
        """The path of ``file`` in the cache, fetched when it is not there.

        Args:
            file: which file.
            fetch: brings the file behind a descriptor to its whole content.
            what: the address of the file, for messages.
            wait: wait for room and for other processes; otherwise give up at once.

        Raises:
            DataError: ``fetch`` failed, the disk refuses, or there was no room in time.
        """
        if file.size > self.limit_bytes:
            raise DataError(
                f"{what}: {file.size} bytes, more than the limit of {self.limit_bytes} bytes of cache {self.folder}"
            )
        patience = _Patience(self.wait_s if wait else 0.0)
        try:
            while True:
                lease = self._found(file) or self._fetched(file, fetch, patience)
                if lease is not None:
                    return lease
                if patience.ended(self._bytes_so_far(file)):
                    raise DataError(f"{what}: {self._why(file, patience)}")
        except OSError as error:
            raise_out_of_files(error)
            raise DataError(
                f"{what}: {file.size} bytes cannot be stored in cache {self.folder}: {error.strerror or error}"
            ) from None

    def _found(self, file: StoredFile) -> Lease | None:
        """A lease on the complete file, if it is there and sound; a damaged one is dropped."""
        path = path_of(self.folder, file, complete=True)
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        if not locks.try_lock(descriptor, shared=True) or not locks.is_at(descriptor, path):
            locks.close(descriptor)
            return None
        lease = Lease(path, descriptor)
        if os.fstat(descriptor).st_size == file.size and (not self.check or sha256_of(path) == file.sha256):
            _touch(descriptor)
            return lease
        with locks.exclusive(self.folder / _LOCK_NAME):
            if locks.is_at(descriptor, path):
                path.unlink()
        lease.release()
        return None

    def _fetched(self, file: StoredFile, fetch: Fetch, patience: _Patience) -> Lease | None:
        """Fetch the file if nobody else does and there is room; None otherwise."""
        partial = path_of(self.folder, file, complete=False)
        descriptor = self._reserved(file, partial, patience)
        if descriptor is None:
            return None
        try:
            fetch(descriptor)
            os.fsync(descriptor)
            path = path_of(self.folder, file, complete=True)
            # Under the lock: a listing meanwhile (readdir(3)) might meet neither name, and so make room too small.
            with locks.exclusive(self.folder / _LOCK_NAME):
                os.rename(partial, path)
            _touch(descriptor)
        except OSError:
            partial.unlink(missing_ok=True)  # a full disk: the beginning would only be in the way
            locks.close(descriptor)
            raise
        except BaseException:
            if not os.fstat(descriptor).st_size:
                partial.unlink(missing_ok=True)
            locks.close(descriptor)
            raise
        # The change of the lock is not atomic: somebody who needs room may have come between.
        if locks.try_lock(descriptor, shared=True) and locks.is_at(descriptor, path):
            return Lease(path, descriptor)
        locks.close(descriptor)
        return None

    def _reserved(self, file: StoredFile, partial: Path, patience: _Patience) -> int | None:
        """A descriptor with the partial file locked and its room reserved: the lock is the reservation."""
        with locks.exclusive(self.folder / _LOCK_NAME):
            if path_of(self.folder, file, complete=True).exists():
                patience.reason = _Wait.other
                return None
            descriptor = os.open(partial, os.O_RDWR | os.O_CREAT, 0o600)
            if not locks.try_lock(descriptor, shared=False) or not locks.is_at(descriptor, partial):
                patience.reason = _Wait.other
            elif make_room(self.folder, file.size, self.limit_bytes, spare=partial):
                return descriptor
            else:
                patience.reason = _Wait.room
                if not os.fstat(descriptor).st_size:
                    partial.unlink()
            locks.close(descriptor)
            return None

    def _bytes_so_far(self, file: StoredFile) -> int:
        try:
            return path_of(self.folder, file, complete=False).stat().st_size
        except FileNotFoundError:
            return -1

    def _why(self, file: StoredFile, patience: _Patience) -> str:
        if patience.reason is _Wait.other:
            return f"another process of this node fetches it and made no progress for {self.wait_s:g} s"
        used = sum(cached.bytes for cached in listing(self.folder))
        return (
            f"no room for {file.size} bytes after {patience.waited_s:.0f} s: cache {self.folder} has a limit of "
            f"{self.limit_bytes} bytes, and {used} bytes in it are in use"
        )


class _Wait(enum.Enum):
    """What a process waits for."""

    other = enum.auto()
    room = enum.auto()


class _Patience:
    """How long one wait has lasted, without any sign of progress."""

    def __init__(self, limit_s: float) -> None:
        self.reason = _Wait.other
        self.waited_s = 0.0
        self._limit_s = limit_s
        self._seen: tuple[_Wait, int] | None = None
        self._since = time.monotonic()

    def ended(self, progress: int) -> bool:
        """Whether to give up; otherwise sleeps a moment. A ``progress`` that is new starts the wait anew."""
        if self._seen != (self.reason, progress):
            self._seen, self._since = (self.reason, progress), time.monotonic()
        self.waited_s = time.monotonic() - self._since
        if self.waited_s >= self._limit_s:
            return True
        time.sleep(random.uniform(*_LOOK_S))
        return False


def _touch(descriptor: int) -> None:
    """Note the use of a file, finer than the clock that the kernel would take."""
    now = time.time_ns()
    os.utime(descriptor, ns=(now, now))
