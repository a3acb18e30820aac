"""The bytes of a file on any fsspec file system, range by range."""

from __future__ import annotations

import functools
import queue
import threading
from collections.abc import Callable, Generator
from typing import Any, TypeVar

from data_shards.storage.faults import Interrupted, Refused
from data_shards.support.descriptors import raise_out_of_files

RANGE_BYTES = 8 << 20
T = TypeVar("T")


def range_chunks(
    filesystem: Any, path: str, *, start: int, size: int | None, stall_s: float
) -> Generator[bytes, None, None]:
    """Yield the bytes of ``path`` from ``start`` on, at most :data:`RANGE_BYTES` at a time.

    Args:
        filesystem: any fsspec file system.
        path: the file in it.
        start: first byte wanted.
        size: bytes of the whole file; None asks the file system.
        stall_s: the longest wait for one range.

    Raises:
        Interrupted: a range could not be read in time, or at all.
        Refused: the file is missing or forbidden.
    """
    end = size if size is not None else _within(stall_s, lambda: filesystem.info(path)["size"])
    while start < end:
        stop = min(start + RANGE_BYTES, end)
        chunk = _within(stall_s, functools.partial(filesystem.cat_file, path, start=start, end=stop))
        if not chunk:
            return
        yield chunk
        start += len(chunk)


def _within(seconds: float, call: Callable[[], T]) -> T:
    """The result of ``call``, made in a thread that is left behind when it takes longer than ``seconds``.

    File systems differ in what limits of time they know; a thread that is left behind is the one that fits all.
    """
    answers: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            answers.put((call(), None))
        except BaseException as error:  # the caller decides what it means
            answers.put((None, error))

    threading.Thread(target=run, name="range", daemon=True).start()
    try:
        result, error = answers.get(timeout=seconds)
    except queue.Empty:
        raise Interrupted(f"no answer for {seconds:g} s") from None
    if isinstance(error, FileNotFoundError):
        raise Refused("no such file on the server") from None
    if isinstance(error, PermissionError):
        raise Refused("access is denied") from None
    if error is not None:
        raise_out_of_files(error)
        raise Interrupted(f"the read failed ({type(error).__name__})") from None
    return result  # type: ignore[return-value]
