"""Indices whose SHA-256 was compared with the manifest: each file is hashed once in a process, however often opened."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_shards.format.bands import read_bands
from data_shards.format.index import map_index
from data_shards.format.manifest import ShardEntry
from data_shards.support.descriptors import raise_out_of_files
from data_shards.support.errors import DataError


class _Seen(NamedTuple):
    """A file that cannot have changed while all of this is the same, and the SHA-256 it had."""

    device: int
    inode: int
    bytes: int
    changed_ns: int
    sha256: str


# Threads may share it: adding and looking up are atomic, and hashing a file twice does no harm.
_verified: set[_Seen] = set()


def verified_index(path: Path, entry: ShardEntry, name: str, *, cached: bool = False) -> tuple[np.memmap, np.ndarray]:
    """The records of a shard, memory-mapped, and the checksums of the bands of its large images.

    Args:
        path: the index on this node.
        entry: what the manifest says of it.
        name: its address, for messages.
        cached: whether it lies in a :class:`~data_shards.storage.Cache`, which writes a file once and afterwards notes
            its use in the time of modification.

    Raises:
        DataError: the index is missing or is not the one that the manifest lists.
        OutOfFiles: it cannot be opened because too many files are open.
    """
    try:
        with open(path, "rb") as file:
            state = os.fstat(file.fileno())
            changed_ns = 0 if cached else state.st_mtime_ns
            seen = _Seen(state.st_dev, state.st_ino, state.st_size, changed_ns, entry.index_sha256)
            if seen not in _verified:
                if hashlib.file_digest(file, "sha256").hexdigest() != entry.index_sha256:
                    raise DataError(f"{name}: damaged: its SHA-256 is not the one in the manifest")
                file.seek(0)
                _verified.add(seen)
            records = map_index(file, name, entry.samples)
            return records, read_bands(file, name, records)
    except OSError as error:
        raise_out_of_files(error)
        raise DataError(f"{name}: cannot be read: {error.strerror or error}") from None
