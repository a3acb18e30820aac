from __future__ import annotations

import contextlib
import hashlib
import math
import os
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from data_shards.format import tar
from data_shards.reading.reader import ShardedDataset
from data_shards.sample import Image, Sample
from data_shards.sources.base import Skipped, Source
from data_shards.support.errors import DataError, MedformerError
from data_shards.vocabulary import Modality, Organ, Task
from data_shards.writing import chunk, duplicates, slots, workers
from data_shards.writing.writer import write_dataset
from tests.data_shards.made_sources import Listed, card, toy_sample
from tests.data_shards.processes import ENVIRONMENT, kill_group, running, session_of, until


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@dataclass
class Slow(Source):
    """Images made from their position; some damaged, one that kills its process, and after some none comes any more."""

    samples: int = 1400
    endless: float = math.inf
    damaged: tuple[int, ...] = ()
    deadly: int = -1
    size: int = 8

    card = card()

    def __len__(self) -> int:
        return self.samples

    def sample(self, position: int) -> Sample:
        if position >= self.endless:
            time.sleep(600)
        if position == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        if position in self.damaged:
            raise ValueError("a decoder that quotes Jane Doe")
        pixels = np.random.default_rng(position).integers(0, 200, (1, self.size, self.size), np.uint8)
        images = {"image": Image(pixels)} if position % 3 else {"t1": Image(pixels), "pet": Image(pixels.astype("<f4"))}
        key = "k" * (1 + position // 100 % 20) + f"-{position}"
        label = None if position % 7 == 0 else np.array([position % 5])
        split = ("train", "train", "val")[position // 2 % 3]
        extra = {"age_years": position % 90} if position % 2 else {}
        return Sample(key, images, Organ(position % 4), f"{position // 2:x}", split, label, attributes=extra)


def test_several_processes_write_the_same_bytes_as_one(tmp_path: Path) -> None:
    for count in (1, 3):
        write_dataset(Slow(), tmp_path / str(count), shard_bytes=150_000, workers=count)
    assert hashes(tmp_path / "1") == hashes(tmp_path / "3")
    assert len(hashes(tmp_path / "1")) > 20


@pytest.mark.parametrize(("sample_bytes", "least", "most"), [(0, 0, 0), (100, 0, 0), (1500, 1, 9), (4000, 10, 10)])
def test_chunks_come_whole_whether_the_shared_memory_holds_none_some_or_all_of_their_splits(
    sample_bytes: int, least: int, most: int
) -> None:
    source = Slow(samples=90)
    probed = workers.Probe(length=20, bytes=sample_bytes)
    alone = list(workers.encoded_chunks(source, probed))
    shared = 0
    for mine, theirs in zip(workers.encoded_chunks(source, probed, workers=2), alone, strict=True):
        assert mine.splits.keys() == theirs.splits.keys() and (mine.keys == theirs.keys).all()
        for split, part in mine.splits.items():
            shared += isinstance(part.content, memoryview)
            assert bytes(part.content) == theirs.splits[split].content
            assert part.records.tobytes() == theirs.splits[split].records.tobytes()
    assert least <= shared <= most


def test_a_machine_without_shared_memory_writes_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_dataset(Slow(), tmp_path / "shared", shard_bytes=150_000, workers=2)
    monkeypatch.setattr(slots, "_SHARED_MEMORY", str(tmp_path / "none"))
    write_dataset(Slow(), tmp_path / "pipe", shard_bytes=150_000, workers=2)
    assert hashes(tmp_path / "pipe") == hashes(tmp_path / "shared")


def test_every_sample_is_where_the_index_says(tmp_path: Path) -> None:
    source = Slow()
    manifest = write_dataset(source, tmp_path / "toy", shard_bytes=100_000)
    assert manifest.attributes == ("age_years",) and len(manifest.splits["train"].shards) > 3
    for name in ("image", "t1", "pet"):
        own = [sample for sample in source if sample.split == "train" and name in sample.images]
        dataset = ShardedDataset(tmp_path / "toy", "train", image=name)
        records = dataset.read(np.arange(len(dataset)))
        assert (records.stacked == np.stack([sample.images[name].pixels for sample in own])).all()
        assert records.key_B.tolist() == [sample.key.encode() for sample in own]
        ages = np.array([sample.attributes.get("age_years", np.nan) for sample in own])
        assert np.array_equal(records.attributes["age_years"], ages, equal_nan=True)


def test_the_vocabulary_lists_what_occurs_also_where_ids_are_equal(tmp_path: Path) -> None:
    pixels = np.zeros((1, 2, 2), np.uint8)
    sample = Sample("a", {"image": Image(pixels, Modality(1))}, Organ(1), "s", "train", task=Task(1))
    assert write_dataset(Listed([sample], card()), tmp_path / "toy").vocabulary == {
        "organ": {"brain": 1},
        "modality": {"mri": 1},
        "dimensionality": {"planar": 1},
        "task": {"self_supervised": 1},
    }


@pytest.mark.parametrize("name", ["a", "train-000000.npy", "x" * 100, "y" * 60 + "/" + "z" * 80, "d/d/k.json"])
@pytest.mark.parametrize("size", [0, 1, 512, 2480, 8**11 - 1])
def test_a_member_header_is_the_one_that_tarfile_writes(name: str, size: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o644
    assert tar.member_header(name, size) == entry.tobuf(tarfile.USTAR_FORMAT, "ascii")


BUILD = """
import sys
from pathlib import Path
from data_shards.writing.writer import write_dataset
from tests.data_shards.writing.test_writer import Slow

if __name__ == "__main__":
    out, count, endless = sys.argv[1:]
    write_dataset(Slow(endless=float(endless)), Path(out), shard_bytes=100_000, workers=int(count))
"""


def note_of(process: subprocess.Popen[bytes], note: Path, seen: bytes = b"") -> bytes:
    """The content of the note of a build when it is another one than ``seen``."""
    content = b""

    def noted() -> bool:
        nonlocal content
        with contextlib.suppress(FileNotFoundError):
            content = note.read_bytes()
        return content not in (b"", seen) or process.poll() is not None

    assert until(noted) and process.poll() is None, "the build ended too early"
    return content


@pytest.mark.parametrize("count", [1, 2])
def test_a_killed_build_goes_on_and_ends_with_the_same_bytes(tmp_path: Path, count: int) -> None:
    write_dataset(Slow(), tmp_path / "whole", shard_bytes=100_000)
    script = tmp_path / "build.py"
    script.write_text(BUILD)
    note = tmp_path / ".cut.building" / "build.journal"
    command = [sys.executable, str(script), str(tmp_path / "cut"), str(count)]
    seen = b""
    for endless in (800, 1200):  # in the second and in the third of three chunks
        with running([*command, str(endless)]) as process:
            seen = note_of(process, note, seen)
            kill_group(process)
            assert not (tmp_path / "cut").exists()
    subprocess.run([*command, "inf"], env=ENVIRONMENT, check=True)
    assert hashes(tmp_path / "cut") == hashes(tmp_path / "whole")
    assert not note.parent.exists()


INTERRUPTED = """
import os, signal, time
from multiprocessing.context import ForkServerProcess
from pathlib import Path

started, start = [], ForkServerProcess.start

def ignores_interrupts(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("SigIgn:")[2].split()[0], 16) >> signal.SIGINT - 1 & 1

def interrupted(process):
    start(process)
    started.append(process)
    if len(started) == 2:
        while not ignores_interrupts(process.pid):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

ForkServerProcess.start = interrupted
"""


def test_an_interrupt_between_the_start_of_a_process_and_its_entry_in_the_pool_leaves_none(tmp_path: Path) -> None:
    script = tmp_path / "build.py"
    script.write_text(INTERRUPTED + BUILD)
    with running([sys.executable, str(script), str(tmp_path / "out"), "2", "inf"], stderr=subprocess.PIPE) as process:
        assert process.wait(60) != 0
        assert process.stderr.read().rstrip().endswith(b"KeyboardInterrupt")
        assert until(lambda: not session_of(process.pid))


def test_a_build_that_failed_goes_on_where_it_stopped(tmp_path: Path) -> None:
    write_dataset(Slow(), tmp_path / "whole", shard_bytes=100_000)
    read: list[int] = []

    class Watched(Slow):
        def sample(self, position: int) -> Sample:
            read.append(position)
            return super().sample(position)

    with pytest.raises(DataError, match=r"^item 1300: cannot be read \(ValueError\)$"):
        write_dataset(Watched(damaged=(1300,)), tmp_path / "cut", shard_bytes=100_000)
    read.clear()
    write_dataset(Watched(), tmp_path / "cut", shard_bytes=100_000)
    assert min(read[1:]) >= 512, "chunks that were journaled are read again"
    assert hashes(tmp_path / "cut") == hashes(tmp_path / "whole")


def test_an_unfinished_build_with_other_options_is_refused_until_it_is_thrown_away(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        write_dataset(Slow(damaged=(1300,)), tmp_path / "toy", shard_bytes=100_000)
    with pytest.raises(MedformerError, match="unfinished build .* --restart"):
        write_dataset(Slow(), tmp_path / "toy", shard_bytes=90_000)
    write_dataset(Slow(), tmp_path / "toy", shard_bytes=90_000, restart=True)
    write_dataset(Slow(), tmp_path / "other", shard_bytes=90_000)
    assert hashes(tmp_path / "toy") == hashes(tmp_path / "other")


def test_two_builds_of_one_folder_do_not_mix(tmp_path: Path) -> None:
    script = tmp_path / "build.py"
    script.write_text(BUILD)
    command = [sys.executable, str(script), str(tmp_path / "toy"), "1"]
    with running([*command, "800"]) as process:
        note_of(process, tmp_path / ".toy.building" / "build.journal")
        with pytest.raises(MedformerError, match="another process is building it"):
            write_dataset(Slow(), tmp_path / "toy", shard_bytes=100_000)
    write_dataset(Slow(), tmp_path / "toy", shard_bytes=100_000)
    write_dataset(Slow(), tmp_path / "whole", shard_bytes=100_000)
    assert hashes(tmp_path / "toy") == hashes(tmp_path / "whole")


def test_what_cannot_be_read_stops_or_is_listed_without_the_text_of_the_decoder(tmp_path: Path) -> None:
    damaged = Slow(samples=60, damaged=(3, 40))
    damaged.skipped = [Skipped("row 5 of the table", "no image", "00ff")]
    with pytest.raises(DataError) as caught:
        write_dataset(damaged, tmp_path / "new" / "stop")
    assert str(caught.value) == "item 3: cannot be read (ValueError)"
    assert list(tmp_path.iterdir()) == []
    for count in (1, 2):
        manifest = write_dataset(damaged, tmp_path / str(count), skip_errors=True, workers=count)
        assert manifest.skipped == 3 and sum(entry.samples for entry in manifest.splits.values()) == 58
        assert (tmp_path / str(count) / "skipped.csv").read_text() == (
            "item,reason,subject\nrow 5 of the table,no image,00ff\nitem 3,cannot be read (ValueError),\n"
            "item 40,cannot be read (ValueError),\n"
        )


def test_a_process_that_dies_ends_the_build_with_a_message(tmp_path: Path) -> None:
    with pytest.raises(MedformerError, match="a process that reads samples died"):
        write_dataset(Slow(deadly=1200), tmp_path / "toy", workers=2)


def twins(*rows: tuple[str, str, int]) -> Listed:
    """Samples of ``(key, split, grey value)``."""
    samples = [toy_sample(key, split=split, pixels=np.full((1, 4, 4), value, np.uint8)) for key, split, value in rows]
    return Listed(samples, card())


def test_equal_images_are_refused_dropped_or_allowed(tmp_path: Path) -> None:
    source = twins(("a", "train", 1), ("b", "train", 2), ("c", "test", 1), ("d", "train", 2), ("e", "test", 3))
    with pytest.raises(DataError, match=r"sample c \(test\) has the same pixels as sample a \(train\)"):
        write_dataset(source, tmp_path / "toy", duplicates="refuse")
    allowed = write_dataset(source, tmp_path / "allowed", duplicates="allow")
    assert (allowed.shared_images, allowed.repeated_images) == ({"train/test": 1}, 2)
    dropped = write_dataset(source, tmp_path / "dropped", duplicates="drop")
    assert {split: entry.samples for split, entry in dropped.splits.items()} == {"train": 2, "test": 1}
    assert (dropped.shared_images, dropped.repeated_images, dropped.skipped) == ({"train/test": 0}, 0, 2)
    table = (tmp_path / "dropped" / "skipped.csv").read_text()
    assert table.splitlines()[1:] == [f"item {n},the same pixels as an earlier sample," for n in (2, 3)]


def test_empty_masks_are_no_equal_images(tmp_path: Path) -> None:
    def study(value: int) -> Sample:
        images = {"image": Image(np.full((1, 3, 3), value, np.uint8)), "mask": Image(np.zeros((1, 3, 3), np.uint8))}
        return Sample(str(value), images, Organ.brain, f"s{value}", "train")

    manifest = write_dataset(Listed([study(1), study(2)], card()), tmp_path / "toy", duplicates="refuse")
    assert manifest.repeated_images == 0
    assert ShardedDataset(tmp_path / "toy", "train").image == "image"


def test_a_fault_at_the_start_of_a_long_build_comes_out_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "_FIRST_LOOK", 8)
    monkeypatch.setattr(workers, "_CHUNK_SAMPLES", 4)
    rows = [toy_sample("twice" if n < 2 else str(n), pixels=np.full((1, 2, 2), n, np.uint8)) for n in range(200)]
    read: list[int] = []

    class Watched(Listed):
        def sample(self, position: int) -> Sample:
            read.append(position)
            return super().sample(position)

    with pytest.raises(DataError, match="item 1: sample twice: the key occurs twice"):
        write_dataset(Watched(rows, card()), tmp_path / "toy")
    assert max(read) == 7
    rows = [toy_sample(k, split=k, subject="p", pixels=np.full((1, 2, 2), 1, np.uint8)) for k in ("train", "test")]
    with pytest.raises(DataError, match="its subject p is in split train and in split test"):
        write_dataset(Listed(rows, card()), tmp_path / "toy")


def test_images_far_larger_than_the_first_do_not_make_a_chunk_large() -> None:
    rows = [toy_sample(str(n), pixels=np.full((1, 1, 4 if n < 1 else 6 << 20), n, np.uint8)) for n in range(14)]
    source = Listed(rows, card())
    probed = workers.probe(source)
    assert probed.length == workers._CHUNK_SAMPLES
    for count in (1, 2):
        chunks = list(workers.encoded_chunks(source, probed, workers=count))
        assert [part.first for part in chunks[1:]] == [part.last for part in chunks[:-1]]
        assert (chunks[0].first, chunks[-1].last, len(chunks)) == (0, 14, 3)
        assert max(len(part.splits["train"].content) for part in chunks) < chunk._LARGEST + (7 << 20)


MEMORY = """
import resource, sys
from pathlib import Path
from data_shards.writing.writer import write_dataset
from tests.data_shards.writing.test_writer import Slow

write_dataset(Slow(samples=int(sys.argv[2]), size=64), Path(sys.argv[1]), shard_bytes=4 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_number_of_samples(tmp_path: Path) -> None:
    peak_kib = {}
    for samples in (1_000, 7_000):
        command = [sys.executable, "-c", MEMORY, str(tmp_path / str(samples)), str(samples)]
        done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=True)
        peak_kib[samples] = int(done.stdout)
    # 6,000 more samples are some 70 MB of pixels.
    assert peak_kib[7_000] - peak_kib[1_000] < 8_000
