"""The chunks of a source, encoded by several processes and handed out in order."""

from __future__ import annotations

import hashlib
import multiprocessing
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from data_shards import tar
from data_shards.sources.base import Source
from data_shards.support.errors import DataError, MedformerError
from data_shards.support.orphans import end_with_parent
from data_shards.writing.chunk import Chunk, encode_chunk, read_sample

# A chunk is about this large, so that memory does not depend on the size of the images...
_CHUNK_BYTES = 8 << 20
# ...and holds no more samples than this, so that a build of small images is journaled often.
_CHUNK_SAMPLES = 512
# How many samples are tried for one that can be read, from which the chunk size is taken.
_TRIED = 64

_source: Source | None = None
_skip_errors = False


def probe(source: Source) -> tuple[int, str]:
    """Look at the first sample that can be read.

    Returns:
        Samples per chunk, a function of the source alone, so that the number of processes changes no byte; and a
        digest of the sample, which tells sources from one another that have the same card.
    """
    for position in range(min(_TRIED, len(source))):
        try:
            sample = read_sample(source, position)
        except DataError:
            continue
        size = sum(image.pixels.nbytes for image in sample.images.values())
        digest = hashlib.sha256()
        for member in tar.members(sample):
            digest.update(member.head)
            digest.update(member.payload)
        return max(1, min(_CHUNK_SAMPLES, _CHUNK_BYTES // (size + 1))), digest.hexdigest()
    return 1, ""


def encoded_chunks(
    source: Source, length: int, *, start: int = 0, workers: int = 1, skip_errors: bool = False
) -> Iterator[Chunk]:
    """The chunks from position ``start`` on, in order.

    Args:
        source: is sent to every process.
        length: samples per chunk.
        start: first position.
        workers: processes; 1 encodes in this one.
        skip_errors: see :func:`data_shards.writing.chunk.encode_chunk`.

    Raises:
        DataError: a sample cannot be read.
        MedformerError: a process died.
    """
    runs = _runs(start, len(source), length)
    if workers > 1:
        yield from _in_processes(source, runs, workers, skip_errors)
        return
    for run in runs:
        while run:
            chunk = encode_chunk(source, run, skip_errors=skip_errors)
            yield chunk
            run = range(chunk.last, run.stop)


def _runs(start: int, stop: int, length: int) -> Iterator[range]:
    """Positions ``start`` to ``stop``, cut at every multiple of ``length``.

    A build that goes on within a run so ends it where it would have ended: statistics are rounded run by run.
    """
    while start < stop:
        end = min((start // length + 1) * length, stop)
        yield range(start, end)
        start = end


def _in_processes(source: Source, runs: Iterable[range], workers: int, skip_errors: bool) -> Iterator[Chunk]:
    # A new interpreter for each process: a fork would copy locks that threads of this one may hold.
    context = multiprocessing.get_context("forkserver")
    pool = ProcessPoolExecutor(workers, context, _begin, (source, skip_errors))
    waiting: deque[tuple[range, Future[Chunk]]] = deque()
    finished = False
    try:
        for run in runs:
            waiting.append((run, pool.submit(_encode, run)))
            if len(waiting) > 2 * workers:
                yield from _first(pool, waiting)
        while waiting:
            yield from _first(pool, waiting)
        finished = True
    except BrokenProcessPool:
        raise MedformerError(
            "a process that reads samples died; when memory is short, ask for fewer processes (--workers)"
        ) from None
    finally:
        if not finished:  # an error, or the user has had enough: nobody waits for chunks that nobody will write
            for process in list((pool._processes or {}).values()):
                process.kill()
        pool.shutdown(wait=True, cancel_futures=True)


def _first(pool: ProcessPoolExecutor, waiting: deque[tuple[range, Future[Chunk]]]) -> Iterator[Chunk]:
    """The run whose turn it is; what is left of it, after a chunk that ended early, is handed in again."""
    run, future = waiting.popleft()
    while run:
        chunk = future.result()
        run = range(chunk.last, run.stop)
        if run:
            future = pool.submit(_encode, run)
        yield chunk


def _begin(source: Source, skip_errors: bool) -> None:
    global _source, _skip_errors
    _source, _skip_errors = source, skip_errors
    end_with_parent()


def _encode(run: range) -> Chunk:
    if _source is None:
        raise RuntimeError("the process was not given a source")
    return encode_chunk(_source, run, skip_errors=_skip_errors)
