"""Working ahead of the consumer in threads, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")

THREAD_NAME = "reader"


def read_in_threads(read: Callable[[S], T], items: Iterable[S], *, readers: int, ahead: int) -> Iterator[T]:
    """Yield ``read(item)`` for each item in order, up to ``ahead`` of them made before they are asked for.

    An error of ``read`` is raised here, after the results before it. The threads end with the iterator: when it is
    exhausted, closed or dropped.

    Args:
        read: what the threads call.
        items: is only iterated in the consumer's thread.
        readers: how many threads; with 0 each result is made when it is asked for, in the consumer's thread.
        ahead: results made ahead; 0 is as no thread.
    """
    if readers < 1 or ahead < 1:
        yield from map(read, items)
        return
    pool = ThreadPoolExecutor(readers, thread_name_prefix=THREAD_NAME)
    pending: deque[Future[T]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(read, item))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
