"""Memory for batches that is used again when nobody holds the batch any more."""

from __future__ import annotations

import math
import weakref
from collections import deque

import numpy as np

# Smaller arrays come from malloc's own free lists. Larger ones are mapped anew each time, and the page faults of fresh
# memory take longer than reading into it.
_SMALLEST = 128 << 10
# Memory that is kept free for the next batches of one size.
_KEPT_BYTES = 256 << 20
_KEPT_BLOCKS = 16


class Buffers:
    """Hands out arrays; the memory of one comes back when it and everything that was made from it are gone.

    Threads may share it: every operation on the lists of free blocks is atomic, so there is no lock that a garbage
    collection in the wrong moment could wait for.
    """

    def __init__(self) -> None:
        self._free: dict[int, deque[np.ndarray]] = {}

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """As :func:`numpy.empty`."""
        needed = math.prod(shape) * dtype.itemsize
        if needed < _SMALLEST:
            return np.empty(shape, dtype)
        size = _size_class(needed)
        free = self._free.setdefault(size, deque(maxlen=max(1, min(_KEPT_BLOCKS, _KEPT_BYTES // size))))
        try:
            block = free.pop()
        except IndexError:
            block = np.empty(size, np.uint8)
        # A view of a view is based on the first array that is no plain view of another one. Through the memoryview that
        # is this one, so it lives as long as any view or tensor of it, and its end means that the block is free.
        array = np.frombuffer(block.data, np.uint8)
        weakref.finalize(array, free.append, block).atexit = False
        return array[:needed].view(dtype).reshape(shape)


def _size_class(needed: int) -> int:
    """``needed`` rounded up by at most an eighth, so that batches of nearly one size share their memory."""
    step = 1 << max(0, needed.bit_length() - 4)
    return -(-needed // step) * step
