"""Open files: all datasets of a process share what it may have, and a lack of them is told as such."""

from __future__ import annotations

import contextlib
import hashlib
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from data_shards.format.index import read_index
from data_shards.format.manifest import read_manifest
from data_shards.format.tar_walk import TarWalk
from data_shards.inspect.verify import verify
from data_shards.reading import pool, verified
from data_shards.reading.reader import ShardedDataset
from data_shards.sample import Image, Sample
from data_shards.sources.base import Source
from data_shards.storage import Cache, StoredFile
from data_shards.storage.local import LocalFolder
from data_shards.support.descriptors import OutOfFiles, descriptors_for_shards
from data_shards.support.errors import DataError
from data_shards.support.limits import open_regular
from data_shards.vocabulary import Organ
from data_shards.writing.writer import write_dataset
from tests.data_shards.made_sources import Listed, card, toy_sample
from tests.data_shards.processes import ENVIRONMENT

SHARDS = 200


def build(folder: Path, name: str, side: int, shards: int = SHARDS) -> Path:
    """A dataset of ``shards`` shards of one image each, whose pixels say its position."""
    pixels = [np.full((1, side, side), number % 251, np.uint8) for number in range(shards)]
    samples = [toy_sample(f"{number:05d}", pixels=image) for number, image in enumerate(pixels)]
    write_dataset(Listed(samples, card(name)), folder / name, shard_bytes=1)
    return folder / name


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two sets: of small images, which are read through a map, and of large ones, which are not."""
    folder = tmp_path_factory.mktemp("sets")
    return [build(folder, "small", 8), build(folder, "large", 160)]


STREAM = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
from collections import Counter
from data_shards.reading.reader import ShardedDataset
from data_shards.stream import SampleStream

if __name__ == "__main__":
    datasets = [ShardedDataset(folder, "train") for folder in sys.argv[2:]]
    stream = SampleStream(datasets, batch_size=8, seed=0, readers=2, reader_kind=sys.argv[1])
    seen, most = Counter(), 0
    for batch in stream:
        assert (batch.images.flatten(1) == (batch.sample_B % 251)[:, None]).all()
        seen.update((batch.dataset, sample) for sample in batch.sample_B.tolist())
        most = max(most, len(os.listdir("/proc/self/fd")))
        if stream.state.epoch == 1:
            break
    assert len(seen) == 400 and set(seen.values()) == {1}
    print(most)
"""


@pytest.mark.parametrize("kind", ["thread", pytest.param("process", marks=pytest.mark.slow)])
def test_two_sets_of_200_shards_stream_whole_with_256_open_files(sets: list[Path], tmp_path: Path, kind: str) -> None:
    script = tmp_path / "stream.py"
    script.write_text(STREAM)
    done = subprocess.run(
        [sys.executable, str(script), kind, *map(str, sets)], env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert kind == "process" or 100 < int(done.stdout) < 220  # it uses what there is, and leaves some to others


FORK = """
import os, sys, threading
import numpy as np
from data_shards.reading.reader import ShardedDataset

dataset = ShardedDataset(sys.argv[1], "train")
order = np.random.default_rng(0).permutation(len(dataset))
threading.Thread(target=lambda: [dataset.read(order) for _ in range(10**6)], daemon=True).start()
for turn in range(4):
    child = os.fork()
    if not child:
        right = (dataset.read(order).stacked[:, 0, 0, 0] == order % 251).all()
        os._exit(0 if right else 1)
    assert os.waitpid(child, 0)[1] == 0
assert (dataset.read(order).stacked[:, 0, 0, 0] == order % 251).all()
print("done", flush=True)
os._exit(0)
"""


def test_a_process_that_is_forked_while_a_thread_reads_reads_on_its_own(sets: list[Path]) -> None:
    command = [sys.executable, "-c", FORK, str(sets[0])]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert done.stdout == "done\n", done.stderr


def test_shards_of_a_dataset_that_is_gone_are_closed(sets: list[Path]) -> None:
    before = len(os.listdir("/proc/self/fd"))
    dataset = ShardedDataset(sets[0], "train")
    dataset.read(np.arange(20))
    assert len(os.listdir("/proc/self/fd")) >= before + 40
    del dataset
    assert len(os.listdir("/proc/self/fd")) <= before


def test_the_share_of_the_shards_follows_the_limit_as_it_is_now() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        shares = {}
        for limit in (200, 256, 1024):
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(limit, hard), hard))
            shares[limit] = descriptors_for_shards()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert shares == {200: 100, 256: 128, 1024: 768}


def test_an_index_is_hashed_once_however_often_it_is_opened_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = build(tmp_path, "toy", 4, shards=3)
    hashed: list[str] = []
    original = hashlib.file_digest

    def counting(file: object, name: str) -> object:
        hashed.append(file.name)  # type: ignore[attr-defined]
        return original(file, name)  # type: ignore[arg-type]

    monkeypatch.setattr(verified.hashlib, "file_digest", counting)
    monkeypatch.setattr(pool, "descriptors_for_shards", lambda: 3)  # one shard at a time
    for _ in range(2):  # the second dataset of the process opens the same files
        dataset = ShardedDataset(folder, "train")
        for turn in range(12):
            assert dataset.read(np.array([turn % 3])).stacked[0, 0, 0, 0] == turn % 3
    assert len(hashed) == 3

    index = folder / read_manifest(folder).splits["train"].shards[1].index
    index.write_bytes(index.read_bytes())
    dataset.read(np.array([1]))
    assert len(hashed) == 4
    content = bytearray(index.read_bytes())
    content[-1] ^= 1
    dataset.read(np.array([0]))
    index.write_bytes(content)
    with pytest.raises(DataError, match=r"index\.npy: damaged"):
        dataset.read(np.array([1]))


@contextlib.contextmanager
def no_more_files() -> Iterator[None]:
    """No file can be opened in the block."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = [os.open(os.devnull, os.O_RDONLY)]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (held[0] + 1, hard))
        with contextlib.suppress(OSError):
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in held:
            os.close(descriptor)


class Opening(Source):
    """Samples that are read from a file each."""

    card = card()
    duplicates = "allow"

    def __init__(self, path: Path) -> None:
        self._path = path

    def __len__(self) -> int:
        return 3

    def sample(self, position: int) -> Sample:
        with contextlib.nullcontext() if position == 0 else no_more_files(), open_regular(self._path) as file:
            pixels = np.frombuffer(file.read(16), np.uint8).reshape(1, 4, 4)
        return Sample(str(position), {"image": Image(pixels)}, Organ.brain, "s", "train")


def _leased(folder: Path) -> None:
    Cache(folder / "cache", 1 << 20).lease(StoredFile("a", 1, "0" * 64), lambda _: None, "a").release()


@pytest.mark.parametrize(
    "opening",
    [
        lambda folder, _: ShardedDataset(folder, "train"),
        lambda folder, dataset: dataset.read(np.array([0])),
        lambda folder, dataset: verify(folder),
        lambda folder, _: read_index(next(folder.glob("*.npy")), 1),
        lambda folder, _: list(TarWalk(next(folder.glob("*.tar")), lambda _: 0)),
        lambda folder, _: LocalFolder(folder).read_bytes("manifest.json", 1 << 20),
        lambda folder, _: _leased(folder),
        lambda folder, _: open_regular(folder / "manifest.json"),
    ],
    ids=["dataset", "index", "verify", "map", "walk", "small file", "cache", "regular file"],
)
def test_a_lack_of_descriptors_is_told_as_such_and_never_as_damage(
    tmp_path: Path, opening: Callable[[Path, ShardedDataset], object]
) -> None:
    folder = build(tmp_path, "toy", 4, shards=2)
    dataset = ShardedDataset(folder, "train")
    (folder / "cache").mkdir()
    # What is found by listing is found before.
    paths = {pattern: list(folder.glob(pattern)) for pattern in ("*.npy", "*.tar")}

    class Listing(type(folder)):  # type: ignore[misc]
        def glob(self, pattern: str) -> Iterator[Path]:  # type: ignore[override]
            return iter(paths[pattern])

    told = r"too many open files: this process may have \d+ \(ulimit -n\)"
    with pytest.raises(OutOfFiles, match=told), no_more_files():
        opening(Listing(folder), dataset)
    assert verify(folder) == [] and dataset.read(np.array([1])).stacked[0, 0, 0, 0] == 1


def test_a_tar_that_cannot_be_opened_after_its_index_is_not_damaged(tmp_path: Path) -> None:
    dataset = ShardedDataset(build(tmp_path, "toy", 4, shards=1), "train")
    dataset.describe(np.array([0]))
    with pytest.raises(OutOfFiles), no_more_files():
        dataset.read(np.array([0]))


def test_a_build_that_runs_out_of_descriptors_leaves_no_sample_out(tmp_path: Path) -> None:
    (tmp_path / "pixels").write_bytes(bytes(16))
    with pytest.raises(OutOfFiles):
        write_dataset(Opening(tmp_path / "pixels"), tmp_path / "toy", skip_errors=True)
    assert not (tmp_path / "toy").exists()
