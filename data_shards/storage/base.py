"""What a storage is: files by name, and leases on their local copies."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

from data_shards.support.errors import DataError

Span = tuple[int, int]
"""A stretch of a file: its first byte, and the one behind its last."""


@dataclass(frozen=True)
class StoredFile:
    """One file of a dataset as its manifest lists it.

    Attributes:
        name: plain file name.
        size: its bytes.
        sha256: its checksum, 64 hexadecimal digits.
    """

    name: str
    size: int
    sha256: str


class Lease:
    """A file on this node that stays in place until the lease is released.

    Release it only when nothing reads the path any more and every memory map of it is closed. A lease that is
    forgotten, and every lease of a process that dies, is released as well.

    Args:
        path: the file.
        descriptor: an open descriptor that holds the lock of the lease; the lease closes it. None when no lock is
            needed.
    """

    def __init__(self, path: Path, descriptor: int | None = None) -> None:
        self.path = path
        # Closing, not unlocking: a forked process that shares the descriptor may still be reading.
        self._close = weakref.finalize(self, os.close, descriptor) if descriptor is not None else None

    def release(self) -> None:
        """Give the file back; more than once is harmless."""
        if self._close is not None:
            self._close()

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class Storage(Protocol):
    """The files of one dataset. Storages pickle; each process opens its own connections."""

    def read_bytes(self, name: str, limit: int) -> bytes:
        """The content of a small file, such as the manifest.

        Args:
            name: plain file name.
            limit: the most bytes that are accepted.

        Raises:
            DataError: the file is missing, cannot be read or is larger than ``limit``.
        """
        ...

    def local(self, name: str, *, size: int, sha256: str) -> Lease:
        """A path on this node with the whole content of a file.

        Args:
            name: plain file name.
            size: its bytes, as the manifest says.
            sha256: its checksum, as the manifest says.

        Raises:
            DataError: the file is missing, cannot be fetched or is not what the manifest says.
        """
        ...

    def spans(self, name: str, spans: Sequence[Span], *, size: int, sha256: str) -> Iterator[memoryview]:
        """Stretches of a file, which is not brought to this node for them; a whole copy that is here is used.

        Their content is not checked: it is for the reader to know checksums of what it asks for.

        Args:
            name: plain file name.
            spans: in rising order, none of them empty.
            size: bytes of the file, as the manifest says.
            sha256: its checksum, as the manifest says.

        Returns:
            The bytes of each, in their order, each valid until the next one is asked for.

        Raises:
            DataError: the file is missing or cannot be read, or is not of this size.
        """
        ...

    def prefetch(self, files: Iterable[StoredFile]) -> None:
        """Start to bring files near. Returns at once and raises nothing: what fails here fails again in ``local``."""
        ...

    def describe(self, name: str = "") -> str:
        """The address of a file, or of the whole storage, for messages: without credentials and query strings."""
        ...


def plain_name(name: str) -> str:
    """``name`` when it is the name of a file in the folder itself.

    Raises:
        DataError: it is empty, leads to another folder or is not printable.
    """
    if not name.isprintable() or "/" in name or "\\" in name or name in ("", ".", ".."):
        raise DataError(f"file name {name!r}: expected a plain name without folders")
    return name
