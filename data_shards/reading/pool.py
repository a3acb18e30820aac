"""The shards that this process has open, whatever dataset they are of; the least recently used are closed first."""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np

from data_shards.format.manifest import ShardEntry
from data_shards.reading.open_shard import OpenShard
from data_shards.storage import Cache, Storage, StoredFile
from data_shards.support.descriptors import descriptors_for_shards

# A shard that stays open cannot leave the cache. So many processes of a node together hold at most half of the cache
# open while they do not read; the rest is for what they do read.
_READERS_OF_A_CACHE = 64
# The kernel bounds the maps of a process too, to 65530 by default, and a shard has two.
_OPEN_SHARDS = 4096


class _OpenShards:
    """All open shards of a process, by owner and number; threads may share it.

    The owners share the descriptors that the process may have. A forked process begins without any: the copies of the
    descriptors are closed, and a lock that another thread held is not there.
    """

    def __init__(self) -> None:
        self.start_anew()

    def start_anew(self) -> None:
        """Close all."""
        # A collection in the middle of a method may end a dataset, which calls forget() in the same thread.
        self._lock = threading.RLock()
        self._open: OrderedDict[tuple[int, int], OpenShard] = OrderedDict()
        self._descriptors = 0

    def get(self, owner: int, number: int, most: int, opened: Callable[[], OpenShard]) -> OpenShard:
        """The shard, made by ``opened`` when it is not open; the owner has at most ``most`` of them afterwards."""
        key = owner, number
        with self._lock:
            shard = self._open.get(key)
            if shard is not None:
                self._open.move_to_end(key)
                return shard
            shard = self._open[key] = opened()
            self._descriptors += shard.descriptors
            if most < _OPEN_SHARDS:
                own = [other for other in tuple(self._open) if other[0] == owner]
                for other in own[: max(0, len(own) - most)]:
                    self._close(other)
            allowed = descriptors_for_shards()
            while self._open and (self._descriptors > allowed or len(self._open) > _OPEN_SHARDS):
                self._close(next(iter(self._open)))
            return shard

    def forget(self, owner: int) -> None:
        """Close the shards of an owner that is gone."""
        with self._lock:
            for key in tuple(self._open):
                if key[0] == owner:
                    self._close(key)

    def _close(self, key: tuple[int, int]) -> None:
        shard = self._open.pop(key, None)  # not there when its dataset has just ended
        if shard is not None:
            self._descriptors -= shard.descriptors


_process = _OpenShards()
_owners = itertools.count()
os.register_at_fork(after_in_child=_process.start_anew)


class ShardPool:
    """Opens the shards of one split by number; threads may share it.

    A shard that is handed out stays open while somebody holds it, whether or not the process still keeps it.

    Args:
        storage: where they lie.
        entries: the shards, in sample order.
        cache: the cache of a remote storage, None when files are read where they lie.
    """

    def __init__(self, storage: Storage, entries: Sequence[ShardEntry], cache: Cache | None) -> None:
        self.storage = storage
        self.entries = entries
        self.ends = np.cumsum([entry.samples for entry in entries], dtype=np.int64)
        self._most = _OPEN_SHARDS
        self._cached = cache is not None
        if cache is not None:
            largest = max(entry.bytes + entry.index_bytes for entry in entries)
            self._most = min(_OPEN_SHARDS, cache.limit_bytes // (2 * _READERS_OF_A_CACHE * max(1, largest)))
        self._owner = next(_owners)
        weakref.finalize(self, _process.forget, self._owner).atexit = False

    def __getitem__(self, number: int) -> OpenShard:
        return _process.get(
            self._owner,
            number,
            self._most,
            lambda: OpenShard(self.storage, self.entries[number], cached=self._cached),
        )

    def first_position(self, number: int) -> int:
        """The position of the first sample of a shard."""
        return int(self.ends[number]) - self.entries[number].samples

    def prefetch(self, numbers: Sequence[int], *, indices_alone: bool = False) -> None:
        """Start to fetch shards, or their indices, that will be needed soon; nothing when they are on this node."""
        if self._cached:
            entries = [self.entries[number] for number in numbers]
            indices = [StoredFile(entry.index, entry.index_bytes, entry.index_sha256) for entry in entries]
            tars = [] if indices_alone else [StoredFile(e.file, e.bytes, e.sha256) for e in entries]
            self.storage.prefetch([*indices, *tars])
