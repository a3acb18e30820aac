"""The chunks of a source, encoded by several processes and handed out in order."""

from __future__ import annotations

import hashlib
import signal
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Any, NamedTuple

from data_shards.format import tar
from data_shards.sources.base import Source
from data_shards.support.errors import DataError, MedformerError
from data_shards.support.orphans import end_with_parent
from data_shards.writing.chunk import Chunk, encode_chunk, read_sample
from data_shards.writing.slots import Slots, Spans

# A chunk is about this large, so that memory does not depend on the size of the images...
_CHUNK_BYTES = 2 << 20
# ...and holds no more samples than this, so that a build of small images is journaled often.
_CHUNK_SAMPLES = 512
# How many samples are tried for one that can be read, from which the chunk size is taken.
_TRIED = 64
# A chunk that is larger than this comes through a pipe.
_SLOT_BYTES = 16 << 20

_source: Source | None = None
_skip_errors = False
_compress = False
_slots: Slots | None = None


class Probe(NamedTuple):
    """What the first sample that can be read says of a source.

    Attributes:
        length: samples per chunk, a function of the source alone, so that the number of processes changes no byte.
        digest: of the sample; it tells sources from one another that have the same card.
        bytes: of the sample in a shard, 0 when none can be read.
    """

    length: int = 1
    digest: str = ""
    bytes: int = 0


def probe(source: Source) -> Probe:
    """Look at the first sample that can be read."""
    for position in range(min(_TRIED, len(source))):
        try:
            sample = read_sample(source, position)
        except DataError:
            continue
        size = sum(image.pixels.nbytes for image in sample.images.values())
        digest = hashlib.sha256()
        stored = 0
        for member in tar.members(sample):
            digest.update(member.head)
            digest.update(member.payload)
            stored += len(tar.content(member))
        return Probe(max(1, min(_CHUNK_SAMPLES, _CHUNK_BYTES // (size + 1))), digest.hexdigest(), stored)
    return Probe()


def encoded_chunks(
    source: Source,
    probed: Probe,
    *,
    start: int = 0,
    workers: int = 1,
    skip_errors: bool = False,
    compress: bool = False,
) -> Iterator[Chunk]:
    """The chunks from position ``start`` on, in order; each is valid until the next one is asked for.

    Args:
        source: is sent to every process.
        probed: what :func:`probe` said of it.
        start: first position.
        workers: processes; 1 encodes in this one.
        skip_errors: see :func:`data_shards.writing.chunk.encode_chunk`.
        compress: likewise.

    Raises:
        DataError: a sample cannot be read.
        MedformerError: a process died.
    """
    runs = _runs(start, len(source), probed.length)
    if workers > 1:
        yield from _in_processes(source, runs, workers, skip_errors, compress, probed.length * probed.bytes)
        return
    for run in runs:
        while run:
            chunk = encode_chunk(source, run, skip_errors=skip_errors, compress=compress)
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


def _in_processes(
    source: Source, runs: Iterable[range], workers: int, skip_errors: bool, compress: bool, chunk_bytes: int
) -> Iterator[Chunk]:
    # So many that the processes have work while the writer waits for the disk; of large chunks fewer, for the memory.
    ahead = (4 if chunk_bytes <= 2 * _CHUNK_BYTES else 2) * workers
    # One for every chunk on its way, for the one that is being written, and for what is left of it.
    free = list(range(ahead + 3))
    slot_bytes = min(_SLOT_BYTES, chunk_bytes + chunk_bytes // 4)
    slots = Slots(len(free), slot_bytes) if slot_bytes and Slots.there_is_room_for(len(free), slot_bytes) else None
    # A new interpreter for each process: a fork would copy locks that threads of this one may hold.
    context = _Remembering()
    context.set_forkserver_preload([__name__])  # imported once for all of them
    pool = ProcessPoolExecutor(workers, context, _begin, (source, skip_errors, compress, slots))

    def submit(run: range) -> _Task:
        slot = free.pop() if slots is not None and free else None
        return _Task(run, slot, pool.submit(_encode, run, slot))

    def finished(task: _Task) -> Iterator[Chunk]:
        """The run of a task; what is left of it, after a chunk that ended early, is handed in again."""
        rest: _Task | None = task
        while rest is not None:
            task = rest
            chunk, spans = task.future.result()
            run = range(chunk.last, task.run.stop)
            rest = submit(run) if run else None
            if slots is not None and task.slot is not None:
                slots.take(task.slot, chunk, spans)
            yield chunk
            if task.slot is not None:
                free.append(task.slot)

    waiting: deque[_Task] = deque()
    sound = False
    try:
        for run in runs:
            waiting.append(submit(run))
            if len(waiting) > ahead:
                yield from finished(waiting.popleft())
        while waiting:
            yield from finished(waiting.popleft())
        sound = True
    except BrokenProcessPool:
        raise MedformerError(
            "a process that reads samples died; when memory is short, ask for fewer processes (--workers)"
        ) from None
    finally:
        if not sound:  # an error, or the user has had enough: nobody waits for chunks that nobody will write
            context.kill()
        pool.shutdown(wait=True, cancel_futures=True)


class _Remembering(ForkServerContext):
    """Knows every process that was started by it.

    The pool knows a process only after it was started. One that an interrupt left between the two would wait for work
    that nobody hands it, and the interpreter for its end.
    """

    def __init__(self) -> None:
        super().__init__()
        self._made: list[ForkServerProcess] = []

    def Process(self, *args: Any, **kwargs: Any) -> ForkServerProcess:  # type: ignore[override]  # a class, to mypy
        process = ForkServerProcess(*args, **kwargs)
        self._made.append(process)
        return process

    def kill(self) -> None:
        """End those that were started."""
        for process in self._made:
            if process.pid is not None:
                process.kill()


class _Task(NamedTuple):
    """A run on its way: the slot that its content comes in, None for the pipe, and the answer to come."""

    run: range
    slot: int | None
    future: Future[tuple[Chunk, Spans]]


def _begin(source: Source, skip_errors: bool, compress: bool, slots: Slots | None) -> None:
    global _source, _skip_errors, _compress, _slots
    _source, _skip_errors, _compress, _slots = source, skip_errors, compress, slots
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; who was asked to build answers it


def _encode(run: range, slot: int | None) -> tuple[Chunk, Spans]:
    if _source is None:
        raise RuntimeError("the process was not given a source")
    chunk = encode_chunk(_source, run, skip_errors=_skip_errors, compress=_compress)
    return chunk, _slots.put(slot, chunk) if _slots is not None and slot is not None else {}
