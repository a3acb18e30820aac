"""One shard on this node: the records of its index, and the bytes of its tar."""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Iterator, Sequence

import numpy as np
from isal.isal_zlib import crc32

from data_shards.format.bands import band_starts
from data_shards.format.manifest import ShardEntry
from data_shards.reading.verified import verified_index
from data_shards.storage import Lease, Storage
from data_shards.storage.base import Span
from data_shards.storage.spans import read_spans
from data_shards.support.descriptors import raise_out_of_files
from data_shards.support.errors import DataError


class OpenShard:
    """Reads of one shard; threads may share it.

    Index and tar are fetched, checked and opened when they are first needed, and closed with the object. The size of a
    file is compared before every access to its mapping: a mapped file that was cut while it was open would otherwise
    end the process (mmap(2), SIGBUS).

    Args:
        storage: where the shard lies.
        entry: what the manifest says of it.
        cached: whether its files are brought into a cache.

    Attributes:
        entry: as given.
        descriptors: how many files it may hold open: the map of the index, the tar and the map of the tar, and for
            cached files two leases.
    """

    def __init__(self, storage: Storage, entry: ShardEntry, *, cached: bool = False) -> None:
        self.entry = entry
        self.descriptors = 5 if cached else 3
        self._storage = storage
        self._cached = cached
        self._lock = threading.Lock()
        self._index: _Index | None = None
        self._tar: _Tar | None = None

    @property
    def name(self) -> str:
        """The address of the shard, for messages."""
        return self._storage.describe(self.entry.file)

    @property
    def records(self) -> np.ndarray:
        """All records, memory-mapped.

        Raises:
            DataError: the index is missing, damaged or cut off.
            OutOfFiles: it cannot be opened because too many files are open; so for every other method.
        """
        return self._indexed().records

    def bands(self, image: str, row: int, count: int) -> np.ndarray | None:
        """CRC-32 of the bands of one image, shape (count,); None where it has none and is read as a whole.

        Args:
            image: its name.
            row: number of its sample in the shard.
            count: how many it has, see :class:`~data_shards.format.bands.Bands`.

        Raises:
            DataError: the index is missing, damaged or cut off.
        """
        index = self._indexed()
        start = index.band_start(image, row)
        return None if start < 0 else index.bands[start : start + count]

    def pieces(self, spans: Sequence[Span], *, whole: bool) -> Iterator[memoryview]:
        """Stretches of the tar, whose content is not checked; each is valid until the next one is asked for.

        Args:
            spans: first byte of each and the one behind its last, in rising order.
            whole: bring all of a remote shard to this node first; otherwise nothing but the spans is fetched.

        Raises:
            DataError: the shard is missing or cut off, or cannot be fetched.
        """
        if spans and spans[-1][1] > self.entry.bytes:
            raise DataError(f"{self.name}: its index lists a sample behind the end of the shard")
        if whole:
            yield from read_spans(self._opened().path, spans, self.name)
        else:
            entry = self.entry
            yield from self._storage.spans(entry.file, spans, size=entry.bytes, sha256=entry.sha256)

    def gather(self, offset_B: np.ndarray, size: int) -> np.ndarray:
        """Small pieces of one size: a fancy index on the overlapping windows of the mapped file.

        Args:
            offset_B: where they begin.
            size: bytes of each.

        Returns:
            uint8, shape (B, size).

        Raises:
            DataError: the shard is missing or cut off.
        """
        content = self._opened().mapped()
        self._check_range(offset_B, size)
        windows = np.lib.stride_tricks.as_strided(content, (len(content) - size + 1, size), (1, 1), writeable=False)
        return windows[offset_B]

    def read_into(self, piece: np.ndarray, offset: int) -> None:
        """Fill a contiguous uint8 array from the shard, past any mapping.

        Raises:
            DataError: the shard is missing or cut off.
        """
        descriptor = self._opened().descriptor
        view = piece.data
        while view:
            try:
                count = os.preadv(descriptor, [view], offset)
            except OSError as error:
                raise DataError(f"{self.name}: cannot be read: {error.strerror or error}") from None
            if not count:
                raise DataError(f"{self.name}: cut off: no byte at position {offset}, the index lists a sample there")
            view, offset = view[count:], offset + count

    def will_need(self, offset_B: np.ndarray, size: int) -> None:
        """Tell the system of pieces that will be read soon, so that the disk works on many at a time."""
        descriptor = self._opened().descriptor
        for offset in offset_B.tolist():
            os.posix_fadvise(descriptor, offset, size, os.POSIX_FADV_WILLNEED)

    def read(self, offset: int, size: int) -> np.ndarray:
        """``size`` bytes from ``offset`` on, as uint8."""
        self._check_range(np.array([offset]), size)
        piece = np.empty(size, np.uint8)
        self.read_into(piece, offset)
        return piece

    def _indexed(self) -> _Index:
        index = self._index
        if index is None:
            with self._lock:
                index = self._index = self._index or _Index(self._storage, self.entry, cached=self._cached)
        index.check()
        return index

    def _opened(self) -> _Tar:
        tar = self._tar
        if tar is None:
            with self._lock:
                tar = self._tar = self._tar or _Tar(self._storage, self.entry)
        return tar

    def _check_range(self, offset_B: np.ndarray, size: int) -> None:
        if offset_B.size and int(offset_B.max()) + size > self.entry.bytes:
            raise DataError(f"{self.name}: its index lists a sample behind the end of the shard")


class _Index:
    """The verified and mapped index of a shard."""

    def __init__(self, storage: Storage, entry: ShardEntry, *, cached: bool) -> None:
        self._name = storage.describe(entry.index)
        self._size = entry.index_bytes
        self._lease = storage.local(entry.index, size=entry.index_bytes, sha256=entry.index_sha256)
        mapped, self.bands = verified_index(self._lease.path, entry, self._name, cached=cached)
        self._mapping = mapped.base
        self.records = np.asarray(mapped)
        self._starts: dict[str, np.ndarray] | None = None

    def band_start(self, image: str, row: int) -> int:
        """Where the checksums of an image begin in :attr:`bands`; -1 where it has none."""
        if not self.bands.size:
            return -1
        if self._starts is None:
            self._starts = band_starts(self.records)
        return int(self._starts[image][row])

    def check(self) -> None:
        """Raise :class:`DataError` when the file is no longer as long as it was."""
        if isinstance(self._mapping, mmap.mmap):
            _check_mapping(self._mapping, self._size, self._name)


class _Tar:
    """The open tar of a shard; it is mapped when small pieces are asked for."""

    def __init__(self, storage: Storage, entry: ShardEntry) -> None:
        self._name = storage.describe(entry.file)
        self._size = entry.bytes
        self._lease: Lease = storage.local(entry.file, size=entry.bytes, sha256=entry.sha256)
        self.path = self._lease.path
        self._mapping: mmap.mmap | None = None
        self._content: np.ndarray | None = None
        try:
            self.descriptor = os.open(self._lease.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise_out_of_files(error)
            raise DataError(f"{self._name}: cannot be read: {error.strerror or error}") from None

    def mapped(self) -> np.ndarray:
        """All bytes, read-only."""
        if self._mapping is None or self._content is None:
            try:
                mapping = mmap.mmap(self.descriptor, 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError) as error:
                raise_out_of_files(error)
                raise DataError(f"{self._name}: cannot be mapped: {error}") from None
            self._content = np.frombuffer(mapping, np.uint8)
            self._mapping = mapping
        _check_mapping(self._mapping, self._size, self._name)
        return self._content

    def __del__(self) -> None:
        # The constructor may have failed before the file was open.
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


def checksums(pieces: np.ndarray) -> np.ndarray:
    """CRC-32 of each row of a contiguous uint8 array ``B,size``."""
    content = pieces.data.cast("B")
    size = pieces.shape[1]
    return np.array([crc32(content[start : start + size]) for start in range(0, len(content), size)], np.uint32)


def _check_mapping(mapping: mmap.mmap, size: int, name: str) -> None:
    found = mapping.size()
    if found != size:
        raise DataError(f"{name}: {found} bytes, the manifest says {size}: it was cut or changed while it was open")
