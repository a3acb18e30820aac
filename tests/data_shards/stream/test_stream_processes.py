"""Reader processes: the same batches as without, any number of them before and after a stop, and none left over."""

from __future__ import annotations

import itertools
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data_shards.reading.reader import ShardedDataset
from data_shards.stream.batch import Batch
from data_shards.stream.reader_processes import check_shared_memory
from data_shards.stream.sample_stream import SampleStream
from data_shards.support.errors import DataError
from data_shards.writing.writer import write_dataset
from tests.data_shards.made_sources import toy_source
from tests.data_shards.processes import running, session_of, until

COUNT, BATCH = 61, 7

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards: fewer than the most readers below."""
    folder = tmp_path_factory.mktemp("shards") / "toy"
    write_dataset(toy_source({"train": COUNT}), folder, shard_bytes=60_000)
    return folder


def opened(folder: Path, **options: Any) -> SampleStream:
    dataset = ShardedDataset(folder, "train")
    return SampleStream([dataset], **({"batch_size": BATCH, "seed": 5, "reader_kind": "process"} | options))


def drawn(stream: SampleStream, batches: int) -> list[tuple[int, int, list[int], bytes]]:
    iterator = iter(stream)
    try:
        return [_content(batch) for batch in itertools.islice(iterator, batches)]
    finally:
        iterator.close()  # type: ignore[attr-defined]


def _content(batch: Batch) -> tuple[int, int, list[int], bytes]:
    return batch.epoch, batch.batch, batch.sample_B.tolist(), batch.images.numpy().tobytes()


# The cases that litData tests: readers 2 to 8 and 8 to 2, ranks 2 to 1 and 1 to 2, a second elastic save after an
# elastic resume, and readers 0 to 4 to 2. Each case is (ranks, readers) before and after each stop.
CASES = {
    "readers 2 to 8": [(1, 2), (1, 8)],
    "readers 8 to 2": [(1, 8), (1, 2)],
    "ranks 2 to 1": [(2, 2), (1, 2)],
    "ranks 1 to 2 to 3, saved twice": [(1, 2), (2, 1), (3, 1)],
    "readers 0 to 4 to 2": [(1, 0), (1, 4), (1, 2)],
}
LONG = ("readers 2 to 8", "readers 8 to 2", "ranks 1 to 2 to 3, saved twice")
"""With processes that are started anew, half a minute each."""


@pytest.mark.parametrize(
    "case, kind",
    [
        pytest.param(case, kind, marks=[pytest.mark.slow] if kind == "process" and case in LONG else [])
        for case in CASES
        for kind in ("thread", "process")
    ],
)
def test_stopped_and_resumed_on_other_ranks_and_readers_it_shows_what_is_left(
    folder: Path, case: str, kind: str
) -> None:
    unbroken = drawn(opened(folder, readers=0), 13)
    state = opened(folder).state_dict()
    stops = np.linspace(0, len(unbroken), len(CASES[case]) + 1).astype(int)
    for (ranks, readers), (first, last) in zip(CASES[case], itertools.pairwise(stops), strict=True):
        options = {"world_size": ranks, "readers": readers, "prefetch": 5, "reader_kind": kind}
        streams = [opened(folder, rank=rank, **options) for rank in range(ranks)]
        for stream in streams:
            stream.load_state_dict(state)
        per_rank = [drawn(stream, last - first) for stream in streams]
        assert len({str(stream.state_dict()) for stream in streams}) == 1
        state = streams[0].state_dict()
        for expected, *parts in zip(unbroken[first:last], *per_rank, strict=True):
            assert [part[:2] for part in parts] == [expected[:2]] * ranks
            assert [sample for part in parts for sample in part[2]] == expected[2]
            assert b"".join(part[3] for part in parts) == expected[3]


def test_an_iterator_that_is_closed_or_dropped_leaves_no_process(folder: Path, helpers: Callable[[], set[int]]) -> None:
    for way in ("close", "drop"):
        iterator: Iterator[Batch] | None = iter(opened(folder, readers=2))
        assert iterator is not None
        next(iterator)
        assert len(helpers()) == 2
        if way == "close":
            iterator.close()  # type: ignore[attr-defined]
        iterator = None
        assert until(lambda: not helpers())


@pytest.mark.parametrize("name, words", [("SIGKILL", "ran out of memory"), ("SIGBUS", "cut off while it was open")])
def test_a_reader_that_is_killed_ends_the_stream_with_its_name(
    folder: Path, name: str, words: str, helpers: Callable[[], set[int]]
) -> None:
    iterator = iter(opened(folder, readers=2, prefetch=2))
    next(iterator)
    victim = min(helpers())
    os.kill(victim, getattr(signal, name))
    with pytest.raises(DataError, match=f"reader process {victim} was killed by {name}.*{words}"):
        list(itertools.islice(iterator, 50))
    assert until(lambda: not helpers())


@pytest.mark.slow
def test_a_reader_that_hangs_is_given_up_in_time(folder: Path, helpers: Callable[[], set[int]]) -> None:
    iterator = iter(opened(folder, readers=1, prefetch=1, timeout_s=10.0))
    next(iterator)
    os.kill(min(helpers()), signal.SIGSTOP)
    with pytest.raises(DataError, match="no batch within 10 s"):
        list(itertools.islice(iterator, 50))
    assert until(lambda: not helpers())


@pytest.mark.slow
def test_a_reader_that_was_stopped_does_not_outlive_its_iterator(folder: Path, helpers: Callable[[], set[int]]) -> None:
    iterator = iter(opened(folder, readers=2, prefetch=2))
    next(iterator)
    for pid in helpers():
        os.kill(pid, signal.SIGSTOP)
    iterator.close()  # type: ignore[attr-defined]
    assert until(lambda: not helpers())


KILLED = """
import os, signal, sys
from data_shards.reading.reader import ShardedDataset
from data_shards.stream.sample_stream import SampleStream

if __name__ == "__main__":
    dataset = ShardedDataset(sys.argv[1], "train")
    iterator = iter(SampleStream([dataset], batch_size=7, seed=5, readers=2, reader_kind="process"))
    next(iterator)
    print("reading", flush=True)
    sys.stdin.readline()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_readers_end_when_the_process_that_reads_is_killed(folder: Path, tmp_path: Path) -> None:
    script = tmp_path / "read.py"
    script.write_text(KILLED)
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with running([sys.executable, str(script), str(folder)], **pipes) as process:
        assert process.stdout.readline() == b"reading\n"
        assert len(session_of(process.pid)) > 3  # with the fork server and its readers
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert process.wait(60) == -signal.SIGKILL
        assert until(lambda: not session_of(process.pid))


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_damage_found_by_a_reader_is_told_as_without(
    tmp_path: Path, kind: str, helpers: Callable[[], set[int]]
) -> None:
    write_dataset(toy_source({"train": 20}), tmp_path / "toy")
    shard = tmp_path / "toy" / "toy-train-000000.tar"
    content = bytearray(shard.read_bytes())
    content[512 + 128] ^= 1
    shard.write_bytes(content)
    messages = []
    for count in (0, 2):
        with pytest.raises(DataError) as error:
            drawn(opened(tmp_path / "toy", readers=count, reader_kind=kind), 20)
        messages.append(str(error.value))
    assert messages[0] == messages[1] and "sample train-00000 fail their CRC-32" in messages[0]
    assert until(lambda: not helpers())


def test_readers_do_not_touch_the_random_state_of_the_run(folder: Path) -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    drawn(opened(folder, readers=1), 2)
    assert (torch.rand(3) == expected).all()


def test_a_batch_takes_one_shared_file_whatever_it_consists_of(folder: Path) -> None:
    iterator = iter(opened(folder, readers=1, prefetch=1))
    held = [next(iterator)]
    before = len(os.listdir("/proc/self/fd"))
    held += list(itertools.islice(iterator, 40))
    assert len(os.listdir("/proc/self/fd")) - before <= 44
    iterator.close()  # type: ignore[attr-defined]
    del held


def test_a_batch_survives_pickling(folder: Path) -> None:
    batch = next(iter(opened(folder, readers=0)))
    copy = pickle.loads(pickle.dumps(batch))
    assert _content(copy) == _content(batch) and copy.rows == batch.rows and copy.name == batch.name
    assert copy.label_BL.dtype == torch.int64 and (copy.label_BL == batch.label_BL).all()


def test_batches_that_shared_memory_cannot_hold_are_refused_before_the_kernel_ends_a_reader() -> None:
    check_shared_memory(1 << 10)
    with pytest.raises(DataError, match="MiB free, the batches .* take up to 4194304 MiB: prefetch less"):
        check_shared_memory(1 << 42)
