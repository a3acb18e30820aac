"""Builds that are cut off at the worst moments, and two that meet."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from data_shards.format.manifest import read_manifest
from data_shards.sample import Image, Sample
from data_shards.sources.base import Source
from data_shards.support.errors import DataError, MedformerError
from data_shards.support.files import put_in_place
from data_shards.support.progress import Progress
from data_shards.vocabulary import Organ
from data_shards.writing import chunk, workers
from data_shards.writing.writer import write_dataset
from tests.data_shards.made_sources import card
from tests.data_shards.processes import ENVIRONMENT, running, session_of, until
from tests.data_shards.writing.test_writer import Slow, hashes, twins

# Ends its own process with SIGKILL when FUNCTION is called for the COUNTth time in a build.
KILLED = """
import importlib, os, signal, sys
from pathlib import Path
from data_shards.writing.writer import write_dataset
from tests.data_shards.writing.test_writer import Slow

owner, function, count = sys.argv[2].rpartition(":")[0], sys.argv[2].rpartition(":")[2], int(sys.argv[3])
module, _, kind = owner.partition("/")
owner = importlib.import_module(module)
owner = getattr(owner, kind) if kind else owner
original = getattr(owner, function)
calls = []

def deadly(*arguments, **options):
    calls.append(None)
    if len(calls) == count:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*arguments, **options)

setattr(owner, function, deadly)
write_dataset(Slow(), Path(sys.argv[1]), shard_bytes=100_000, overwrite=True)
"""


@pytest.mark.parametrize(
    ("function", "count"),
    [
        ("data_shards.writing.shard_file/ClosedShard:finished", 4),
        ("data_shards.writing.build:write_manifest", 1),
        ("data_shards.writing.build_folder:sync_tree", 1),
        ("data_shards.writing.build_folder:put_in_place", 1),
        ("data_shards.writing.build_folder:_delete", 2),
    ],
)
def test_a_build_that_is_killed_while_it_ends_goes_on_and_ends_with_the_same_bytes(
    tmp_path: Path, function: str, count: int
) -> None:
    write_dataset(Slow(), tmp_path / "whole", shard_bytes=100_000)
    script = tmp_path / "build.py"
    script.write_text(KILLED)
    command = [sys.executable, str(script), str(tmp_path / "cut"), function, str(count)]
    first = subprocess.run(command, env=ENVIRONMENT)
    assert first.returncode == -signal.SIGKILL and not (tmp_path / "cut").exists()
    read: list[int] = []

    class Watched(Slow):
        def sample(self, position: int) -> Sample:
            read.append(position)
            return super().sample(position)

    write_dataset(Watched(), tmp_path / "cut", shard_bytes=100_000)
    assert hashes(tmp_path / "cut") == hashes(tmp_path / "whole")
    assert len(read) < 1000, "what was done is done again"


def test_a_replacement_that_is_killed_half_way_does_not_stand_in_the_way_of_the_next(tmp_path: Path) -> None:
    out = tmp_path / "toy"
    write_dataset(Slow(samples=60), out)
    (tmp_path / ".toy.retired").mkdir()  # what a process leaves that is killed while it deletes the old dataset
    (tmp_path / ".toy.retired" / "old.tar").write_bytes(b"")
    write_dataset(Slow(samples=90), out, overwrite=True)
    assert sum(entry.samples for entry in read_manifest(out).splits.values()) == 90
    assert [path.name for path in tmp_path.iterdir()] == ["toy"]


@dataclass
class Growing(Source):
    """A small image, from which the length of a chunk is taken, and larger ones, so that chunks end early."""

    damaged: int = -1

    card = card()

    def __len__(self) -> int:
        return 60

    def sample(self, position: int) -> Sample:
        if position == self.damaged:
            raise ValueError
        side = 40 if position else 4
        pixels = np.random.default_rng(position).normal(size=(1, side, side)).astype("<f4") * 1000
        return Sample(str(position), {"image": Image(pixels)}, Organ.brain, f"s{position}", "train")


def test_chunks_that_end_early_change_no_byte_of_a_build_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunk, "_LARGEST", 70_000)
    monkeypatch.setattr(workers, "_CHUNK_SAMPLES", 16)
    whole = write_dataset(Growing(), tmp_path / "whole", shard_bytes=60_000)
    with pytest.raises(DataError):
        write_dataset(Growing(damaged=30), tmp_path / "cut", shard_bytes=60_000)
    assert write_dataset(Growing(), tmp_path / "cut", shard_bytes=60_000) == whole
    assert hashes(tmp_path / "cut") == hashes(tmp_path / "whole")


def test_what_a_killed_process_left_half_written_does_not_come_into_the_dataset(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        write_dataset(Slow(damaged=(1300,)), tmp_path / "toy", shard_bytes=100_000)
    building = tmp_path / ".toy.building"
    (building / ".build.journal.0123abcd.partial").write_text("{")
    (building / "tmp1234").mkdir()
    (building / "tmp1234" / "0").write_bytes(b"")
    write_dataset(Slow(), tmp_path / "toy", shard_bytes=100_000)
    write_dataset(Slow(), tmp_path / "whole", shard_bytes=100_000)
    assert hashes(tmp_path / "toy") == hashes(tmp_path / "whole")


def test_a_shard_that_vanished_from_an_unfinished_build_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        write_dataset(Slow(damaged=(1300,)), tmp_path / "toy", shard_bytes=100_000)
    shard = tmp_path / ".toy.building" / "toy-train-000000.tar"
    os.truncate(shard, shard.stat().st_size - 1)
    with pytest.raises(MedformerError, match=r"toy-train-000000\.tar: .* bytes, expected .*--restart"):
        write_dataset(Slow(), tmp_path / "toy", shard_bytes=100_000)


@dataclass
class Salted(Slow):
    """Subjects that depend on more than the card says, as they do on a salt."""

    salt: str = ""

    def sample(self, position: int) -> Sample:
        sample = super().sample(position)
        return Sample(sample.key, sample.images, sample.organ, self.salt + sample.subject, sample.split, sample.label)


def test_a_build_does_not_go_on_with_other_samples(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        write_dataset(Salted(damaged=(1300,)), tmp_path / "toy", shard_bytes=100_000)
    with pytest.raises(MedformerError, match="unfinished build"):
        write_dataset(Salted(salt="ff"), tmp_path / "toy", shard_bytes=100_000)


def test_progress_counts_what_an_earlier_run_did_and_no_sample_twice(tmp_path: Path) -> None:
    def lines(source: Source, out: Path, **options: str) -> list[str]:
        text = io.StringIO()
        with Progress(len(source), "samples", "toy", stream=text, seconds=0) as progress:
            write_dataset(source, out, shard_bytes=100_000, progress=progress, **options)  # type: ignore[arg-type]
        return text.getvalue().splitlines()

    with pytest.raises(DataError):
        write_dataset(Slow(damaged=(1300,)), tmp_path / "toy", shard_bytes=100_000)
    assert lines(Slow(), tmp_path / "toy")[-1].startswith(f"toy: {1400 - 1024} samples in")
    source = twins(("a", "train", 1), ("b", "train", 2), ("c", "test", 1))
    assert not any("4/3" in line or "5/3" in line for line in lines(source, tmp_path / "drop", duplicates="drop"))


def test_a_build_that_begins_while_another_one_ends_does_not_harm_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from data_shards.writing import build_folder

    def meeting(*arguments: Path) -> None:
        monkeypatch.setattr(build_folder, "put_in_place", put_in_place)
        with pytest.raises(MedformerError, match="another process is building it"):
            write_dataset(Slow(samples=60), tmp_path / "toy")
        put_in_place(*arguments)

    monkeypatch.setattr(build_folder, "put_in_place", meeting)
    write_dataset(Slow(samples=60), tmp_path / "toy")
    assert read_manifest(tmp_path / "toy").splits["train"].samples > 0
    assert list((tmp_path / "toy").glob("*.tar"))


class Stuck(Slow):
    """Samples that take ten minutes, after the first."""

    def sample(self, position: int) -> Sample:
        if position:
            time.sleep(600)
        return super().sample(position)


def test_a_build_that_is_given_up_does_not_wait_for_samples_on_their_way(helpers: Callable[[], set[int]]) -> None:
    chunks = workers.encoded_chunks(Stuck(samples=60), workers.Probe(), workers=2)
    assert next(chunks).last == 1 and len(helpers()) == 2
    chunks.close()  # type: ignore[attr-defined]
    assert not helpers()


def test_a_build_that_is_given_up_does_not_wait_for_a_process_that_was_stopped(helpers: Callable[[], set[int]]) -> None:
    chunks = workers.encoded_chunks(Stuck(samples=60), workers.Probe(), workers=2)
    next(chunks)
    for pid in helpers():
        os.kill(pid, signal.SIGSTOP)
    chunks.close()  # type: ignore[attr-defined]
    assert not helpers()


KILLED_AT_ONCE = """
import os, signal
from data_shards.writing import workers
from tests.data_shards.writing.test_build_faults import Stuck

next(workers.encoded_chunks(Stuck(samples=60), workers.Probe(), workers=2))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_build_that_is_killed_leaves_no_process() -> None:
    with running([sys.executable, "-c", KILLED_AT_ONCE]) as process:
        assert process.wait(120) == -signal.SIGKILL
        assert until(lambda: not session_of(process.pid))
