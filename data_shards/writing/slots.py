"""Shared memory in which encoded samples reach the process that writes: a pipe would copy every byte four times."""

from __future__ import annotations

import ctypes
import os
from multiprocessing import sharedctypes

from data_shards.writing.chunk import Chunk

_SHARED_MEMORY = "/dev/shm"
# Where the content of a split lies in a slot: first byte and last-plus-one.
Spans = dict[str, tuple[int, int]]


class Slots:
    """Areas of one size, each for the content of one chunk at a time; the others are told which by its number.

    It is pickled only into a process that is being started. The memory has no name, so nothing is left when all
    processes are gone, however they ended; and all of it is taken at once, so that it cannot be missing later.

    Args:
        count: how many slots.
        size: bytes of a slot.
    """

    def __init__(self, count: int, size: int) -> None:
        self._size = size
        self._memory = sharedctypes.RawArray(ctypes.c_ubyte, count * size)

    @staticmethod
    def there_is_room_for(count: int, size: int) -> bool:
        """Whether the machine has so much shared memory, and as much again for others."""
        try:
            state = os.statvfs(_SHARED_MEMORY)
        except OSError:
            return False
        return 2 * count * size <= state.f_bavail * state.f_frsize

    def put(self, slot: int, chunk: Chunk) -> Spans:
        """Move the content of ``chunk`` to a slot; a split for which there is no room keeps its own."""
        spans: Spans = {}
        start = 0
        area = self._area(slot)
        for split, part in chunk.splits.items():
            end = start + len(part.content)
            if end <= self._size:
                area[start:end] = part.content
                part.content = b""
                spans[split] = start, end
                start = end
        return spans

    def take(self, slot: int, chunk: Chunk, spans: Spans) -> None:
        """Give ``chunk`` its content back, as views of the slot: they are valid until the slot is used again."""
        area = self._area(slot)
        for split, (start, end) in spans.items():
            chunk.splits[split].content = area[start:end]

    def _area(self, slot: int) -> memoryview:
        return memoryview(self._memory).cast("B")[slot * self._size : (slot + 1) * self._size]
