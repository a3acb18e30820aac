"""Stretches of a file, of this node or of a server, without the rest of it."""

from __future__ import annotations

import collections
import contextlib
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from data_shards.storage.base import Span
from data_shards.storage.faults import Interrupted, Mismatch, Refused
from data_shards.storage.transfer import PROGRESS_BYTES, Retries
from data_shards.support.descriptors import raise_out_of_files
from data_shards.support.errors import DataError

# Makes a generator of the bytes between two offsets; closing it ends the request. It may bring more than asked for.
SpanChunks = Callable[[int, int], Generator[bytes, None, None]]

# Stretches that lie so near to each other are asked for at once: the gap costs less than another request.
_GAP_BYTES = 32 << 10
# What is asked for at once is no larger, unless a single stretch is.
_REQUEST_BYTES = 4 << 20
# Requests on their way at a time. One waits for the network, not for this machine.
_REQUESTS = 8


def read_spans(path: Path, spans: Sequence[Span], what: str) -> Iterator[memoryview]:
    """The bytes of each span, in memory that the next one takes over.

    The system is told of all of them first, so that the disk works on many at a time and reads nothing else.

    Args:
        path: of the file on this node.
        spans: first byte of each, and the one behind its last.
        what: the address, for messages.

    Raises:
        DataError: the file is shorter, or cannot be read.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            yield from _read(file.fileno(), spans, what)
    except OSError as error:
        raise_out_of_files(error)
        raise DataError(f"{what}: cannot be read: {error.strerror or error}") from None


def _read(descriptor: int, spans: Sequence[Span], what: str) -> Iterator[memoryview]:
    for start, stop in spans:
        os.posix_fadvise(descriptor, start, stop - start, os.POSIX_FADV_WILLNEED)
    memory = memoryview(bytearray(max((stop - start for start, stop in spans), default=0)))
    for start, stop in spans:
        piece = rest = memory[: stop - start]
        while rest:
            at = stop - len(rest)
            count = os.preadv(descriptor, [rest], at)
            if not count:
                raise DataError(f"{what}: cut off: no byte at position {at}, the index lists a sample there")
            rest = rest[count:]
        yield piece


def fetch_spans(chunks: SpanChunks, spans: Sequence[Span], what: str, retries: Retries) -> Iterator[memoryview]:
    """The bytes of each span from a server, several requests at a time; no more than these are held.

    Args:
        chunks: the transport.
        spans: in rising order.
        what: the address, for messages.
        retries: how patient to be with each request.

    Raises:
        DataError: a span cannot be fetched, or the file is not the one that the manifest lists.
    """
    waiting: collections.deque[tuple[list[Span], Future[bytes]]] = collections.deque()
    with ThreadPoolExecutor(_REQUESTS, "spans") as pool:
        try:
            for near in _joined(spans):
                if len(waiting) == _REQUESTS:
                    yield from _parts(*waiting.popleft())
                waiting.append((near, pool.submit(_fetched, chunks, (near[0][0], near[-1][1]), what, retries)))
            while waiting:
                yield from _parts(*waiting.popleft())
        finally:
            for _, future in waiting:
                future.cancel()


def _joined(spans: Sequence[Span]) -> Iterator[list[Span]]:
    """Runs of spans that one request brings."""
    near: list[Span] = []
    for span in spans:
        if near and (span[0] - near[-1][1] > _GAP_BYTES or span[1] - near[0][0] > _REQUEST_BYTES):
            yield near
            near = []
        near.append(span)
    if near:
        yield near


def _parts(near: Sequence[Span], future: Future[bytes]) -> Iterator[memoryview]:
    content = memoryview(future.result())
    begin = near[0][0]
    for start, stop in near:
        yield content[start - begin : stop - begin]


def _fetched(chunks: SpanChunks, span: Span, what: str, retries: Retries) -> bytes:
    """The bytes of one span; what arrived before a connection broke is not asked for again."""
    start, stop = span
    content = bytearray()
    attempts = fruitless = 0
    while True:
        before, attempts = len(content), attempts + 1
        try:
            with contextlib.closing(chunks(start + len(content), stop)) as pieces:
                for piece in pieces:
                    content += piece[: stop - start - len(content)]
                    if len(piece) and len(content) == stop - start:
                        return bytes(content)
            raise Interrupted("the connection ended in the middle of the range")
        except (Refused, Mismatch) as problem:
            raise DataError(f"{what}: {problem}") from None
        except Interrupted as problem:
            fruitless = 0 if len(content) - before >= PROGRESS_BYTES else fruitless + 1
            if fruitless >= retries.attempts:
                raise DataError(
                    f"{what}: {len(content)} of the {stop - start} bytes from {start} on after {attempts} attempts; "
                    f"the last one: {problem}"
                ) from None
        retries.pause(fruitless)
