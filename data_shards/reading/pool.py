"""The shards of a split that are open, the least recently used closed first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from data_shards.format.manifest import ShardEntry
from data_shards.reading.open_shard import OpenShard
from data_shards.storage import Cache, Storage, StoredFile

# Each open shard holds two file descriptors; the usual limit of a process is 1024.
_OPEN_SHARDS = 256
# A shard that stays open cannot leave the cache. So many processes of a node together hold at most half of the cache
# open while they do not read; the rest is for what they do read.
_READERS_OF_A_CACHE = 64


class ShardPool:
    """Opens shards by number; threads may share it.

    A shard that is handed out stays open while somebody holds it, whether or not the pool still does.

    Args:
        storage: where they lie.
        entries: the shards, in sample order.
        cache: the cache of a remote storage, None when files are read where they lie.
    """

    def __init__(self, storage: Storage, entries: Sequence[ShardEntry], cache: Cache | None) -> None:
        self.storage = storage
        self.entries = entries
        self.ends = np.cumsum([entry.samples for entry in entries], dtype=np.int64)
        self._capacity = _OPEN_SHARDS
        self._remote = cache is not None
        if cache is not None:
            largest = max(entry.bytes + entry.index_bytes for entry in entries)
            self._capacity = min(_OPEN_SHARDS, cache.limit_bytes // (2 * _READERS_OF_A_CACHE * max(1, largest)))
        self._open: OrderedDict[int, OpenShard] = OrderedDict()
        self._verified: set[int] = set()
        self._lock = threading.Lock()

    def __getitem__(self, number: int) -> OpenShard:
        with self._lock:
            shard = self._open.get(number)
            if shard is None:
                # What came through the cache cannot have changed since; a file that somebody else owns can.
                trusted = self._remote and number in self._verified
                shard = self._open[number] = OpenShard(self.storage, self.entries[number], trusted=trusted)
            self._open.move_to_end(number)
            while len(self._open) > self._capacity:
                self._open.popitem(last=False)
            return shard

    def records_of(self, shard: OpenShard, number: int) -> np.ndarray:
        """The verified records of shard ``number``.

        Raises:
            DataError: its index is missing or damaged.
        """
        records = shard.records
        self._verified.add(number)
        return records

    def first_position(self, number: int) -> int:
        """The position of the first sample of a shard."""
        return int(self.ends[number]) - self.entries[number].samples

    def prefetch(self, numbers: Sequence[int]) -> None:
        """Start to fetch shards that will be needed soon; does nothing when they are on this node."""
        if self._remote:
            entries = [self.entries[number] for number in numbers]
            indices = [StoredFile(entry.index, entry.index_bytes, entry.index_sha256) for entry in entries]
            self.storage.prefetch([*indices, *(StoredFile(e.file, e.bytes, e.sha256) for e in entries)])
