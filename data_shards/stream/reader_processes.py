"""Working ahead of the consumer in processes, in order: torch's DataLoader under the stream."""

from __future__ import annotations

import math
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotInTime
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from data_shards.support.descriptors import OutOfFiles, out_of_files, raise_out_of_files
from data_shards.support.errors import DataError, MedformerError
from data_shards.support.orphans import end_with_parent

S = TypeVar("S")
T = TypeVar("T")

# How often the processes are looked at while a batch is waited for. A reader started by a fork server is no child of
# this process, so no signal tells of its end.
_LOOK_S = 2.0
# How long it may take to end them all; torch gives each of them twice 5 seconds.
_CLOSING_S = 30.0
_SHARED_MEMORY = "/dev/shm"


def read_in_processes(
    read: Callable[[S], T],
    items: Iterable[S],
    *,
    readers: int,
    ahead: int,
    pin_memory: bool = False,
    timeout_s: float = 600.0,
) -> Iterator[T]:
    """Yield ``read(item)`` for each item in order, made by other processes before they are asked for.

    They are started by a fork server, never forked from this process, which may hold threads and a CUDA context.
    They end with the iterator: when it is exhausted, closed or dropped, or when this process is killed.

    Args:
        read: what the processes call; it is pickled once for each.
        items: is only iterated in this process.
        readers: how many processes.
        ahead: results made ahead by all of them together; rounded up to a multiple of ``readers``.
        pin_memory: move the results to page-locked memory, in a thread of this process.
        timeout_s: the longest wait for one result.

    Raises:
        DataError: what ``read`` raised; or a process died or gave no answer in time.
    """
    context = multiprocessing.get_context("forkserver")
    # Imported once by the server, then there in every reader; no effect when the server runs already.
    context.set_forkserver_preload([__name__])
    loader: DataLoader[Any] = DataLoader(
        _Answers(read),
        batch_size=None,
        sampler=items,
        num_workers=readers,
        prefetch_factor=math.ceil(max(1, ahead) / readers),
        pin_memory=pin_memory,
        timeout=_LOOK_S,
        multiprocessing_context=context,
        worker_init_fn=_begin,
        generator=torch.Generator(),  # else it draws from the global one, and a run would depend on its readers
    )
    answers = iter(loader)
    # Receiving a tensor from a process that was stopped in the middle blocks without limit, so another thread does it.
    receiver = ThreadPoolExecutor(1, thread_name_prefix="receive batches")
    sound = True
    try:
        while True:
            try:
                answer = receiver.submit(_next, answers).result(timeout_s)
            except NotInTime:
                sound = False
                raise DataError(f"the reader processes gave no batch within {timeout_s:g} s") from None
            except (DataError, OutOfFiles):
                sound = False
                raise
            if answer is None:
                return
            if isinstance(answer, _Failed):
                raise answer.error
            yield answer
            del answer  # a consumer that drops its batch frees it before the next one comes
    finally:
        _end(answers, sound=sound)
        receiver.shutdown(wait=sound)


def check_shared_memory(needed: int) -> None:
    """Refuse to start when the batches on their way would not fit.

    A process that writes to shared memory when there is none left is ended by the kernel without a message.

    Raises:
        DataError: fewer than ``needed`` bytes are free.
    """
    try:
        state = os.statvfs(_SHARED_MEMORY)
    except OSError:
        return
    free = state.f_bavail * state.f_frsize
    if needed > free:
        raise DataError(
            f"{_SHARED_MEMORY} has {free >> 20} MiB free, the batches that reader processes hold ahead take up to "
            f"{-(-needed >> 20)} MiB: prefetch less, read in threads, or give the container more (docker: --shm-size)"
        )


class _Failed:
    """An error of a reader on its way to the consumer; the DataLoader itself would put a traceback into its text."""

    def __init__(self, error: MedformerError) -> None:
        self.error = error


class _Answers(Dataset[Any]):
    """A dataset in the sense of torch: one result, or the error instead of it, for each item."""

    def __init__(self, read: Callable[[Any], Any]) -> None:
        self._read = read

    def __getitem__(self, item: Any) -> Any:
        try:
            return self._read(item)
        except MedformerError as error:
            return _Failed(error)


def _begin(_: int) -> None:
    end_with_parent()


def _next(answers: Any) -> Any:
    """The next answer, None after the last one."""
    while True:
        try:
            return next(answers, None)
        except (RuntimeError, OSError, EOFError) as error:
            raise_out_of_files(error)
            if "ancdata" in str(error):  # a descriptor that was sent found no place here (multiprocessing.reduction)
                raise out_of_files() from error
            late = isinstance(error, RuntimeError) and "timed out" in str(error)
            # A broken connection may be noticed before the end of the process behind it.
            multiprocessing.connection.wait([worker.sentinel for worker in answers._workers], 0 if late else _LOOK_S)
            dead = [worker for worker in answers._workers if worker.exitcode not in (None, 0)]
            if dead:
                raise DataError("; ".join(map(_obituary, dead))) from None
            if not late:
                raise


def _end(answers: Any, *, sound: bool) -> None:
    """Do what the iterator does when it is collected, but now: an exception on its way out may keep it alive.

    A process that died or hangs may hold a lock that the DataLoader waits for without limit; so the others are killed
    then, and the wait is bounded. At the end it only asks them to terminate, which one that was stopped does not hear.
    """
    if not sound:
        _kill(answers._workers)
    closing = threading.Thread(target=answers._shutdown_workers, name="close readers", daemon=True)
    closing.start()
    closing.join(_CLOSING_S)
    _kill(answers._workers)


def _kill(workers: Iterable[Any]) -> None:
    for worker in workers:
        if worker.is_alive():
            worker.kill()


def _obituary(worker: Any) -> str:
    if worker.exitcode > 0:
        return f"reader process {worker.pid} ended with status {worker.exitcode}; its own message stands above"
    name = signal.Signals(-worker.exitcode).name
    hint = {
        signal.SIGKILL: ", perhaps because the machine ran out of memory",
        signal.SIGBUS: f", perhaps because {_SHARED_MEMORY} is full or a shard was cut off while it was open",
    }.get(signal.Signals(-worker.exitcode), "")
    return f"reader process {worker.pid} was killed by {name}{hint}"
