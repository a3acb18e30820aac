"""Working ahead of the consumer, in one thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


class _Failed:
    """An error of the producer on its way to the consumer."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


class _Finished:
    """The producer has no more items."""


def prefetch(items: Iterable[T], depth: int) -> Iterator[T]:
    """Yield ``items``, up to ``depth`` of them made ahead by a background thread.

    An error of ``items`` is raised here, after the items made before it. The thread ends with the iterator: when it is
    exhausted, closed or dropped. ``depth`` 0 makes each item when it is asked for, without a thread.
    """
    if depth < 1:
        yield from items
        return
    made: queue.SimpleQueue[T | _Failed | _Finished] = queue.SimpleQueue()
    free = threading.Semaphore(depth)
    stopped = threading.Event()
    worker = threading.Thread(target=_produce, args=(items, made, free, stopped), name="prefetch", daemon=True)
    worker.start()
    try:
        while True:
            item = made.get()
            if isinstance(item, _Finished):
                return
            if isinstance(item, _Failed):
                raise item.error
            free.release()
            yield item
    finally:
        stopped.set()
        free.release()
        worker.join()


def _produce(
    items: Iterable[T],
    made: queue.SimpleQueue[T | _Failed | _Finished],
    free: threading.Semaphore,
    stopped: threading.Event,
) -> None:
    try:
        iterator = iter(items)
        while True:
            free.acquire()
            if stopped.is_set():
                return
            try:
                item = next(iterator)
            except StopIteration:
                break
            made.put(item)
    except BaseException as error:  # whatever it is, the consumer must see it rather than wait for ever
        made.put(_Failed(error))
        return
    made.put(_Finished())
