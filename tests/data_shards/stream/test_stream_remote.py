"""Shards behind a URL stream as local ones do, through a cache that is smaller than the dataset."""

from __future__ import annotations

import itertools
import pickle
import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest

from data_shards.order.lanes import Locality
from data_shards.reading.reader import ShardedDataset
from data_shards.storage import Cache
from data_shards.stream.sample_stream import SampleStream
from data_shards.support.errors import DataError
from data_shards.writing.writer import write_dataset
from tests.data_shards.made_sources import toy_source
from tests.data_shards.storage.server import Server

COUNT = 40


@pytest.fixture
def places(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """The same shards in a folder and behind a URL."""
    folder, url = tmp_path / "toy", f"memory://{uuid.uuid4().hex}"
    write_dataset(toy_source({"train": COUNT}, shape=(1, 20, 20)), folder, shard_bytes=25_000)
    memory = fsspec.filesystem("memory")
    memory.put(str(folder), url, recursive=True)
    yield folder, url
    memory.rm(url, recursive=True)


@pytest.mark.parametrize("readers", [0, 3])
def test_a_stream_through_a_small_cache_shows_what_the_local_one_shows(
    tmp_path: Path, places: tuple[Path, str], readers: int
) -> None:
    folder, url = places
    local = ShardedDataset(folder, "train")
    largest = max(shard.bytes + shard.index_bytes for shard in local.entry.shards)
    assert len(local.entry.shards) > 6
    cache = Cache(tmp_path / "cache", limit_bytes=4 * largest, wait_s=60)
    remote = ShardedDataset(url, "train", cache=cache)
    assert remote.remote and remote.folder == url and not any(cache.folder.iterdir())  # opening fetches no shard
    streams = [
        SampleStream([dataset], batch_size=7, seed=0, readers=readers, lookahead=3) for dataset in (local, remote)
    ]
    for mine, theirs in itertools.islice(zip(*streams, strict=True), streams[0].batches_per_epoch):
        assert mine.sample_B.tolist() == theirs.sample_B.tolist()
        assert (mine.images == theirs.images).all() and (mine.label_BL == theirs.label_BL).all()


def test_labels_alone_fetch_no_pixels(tmp_path: Path, places: tuple[Path, str]) -> None:
    cache = Cache(tmp_path / "cache", limit_bytes=1 << 20)
    remote = ShardedDataset(places[1], "train", cache=cache)
    assert remote.describe(np.arange(COUNT)).label_BL[:, 0].tolist() == [place % 3 for place in range(COUNT)]
    assert {path.stat().st_size for path in cache.folder.glob("*.file")} <= {s.index_bytes for s in remote.entry.shards}


def test_a_remote_dataset_travels_to_another_process_unless_it_was_changed(
    tmp_path: Path, places: tuple[Path, str]
) -> None:
    folder, url = places
    remote = ShardedDataset(url, "train", cache=Cache(tmp_path / "cache", limit_bytes=1 << 20))
    sent = pickle.dumps(remote)
    assert (pickle.loads(sent).read(np.arange(3)).stacked == remote.read(np.arange(3)).stacked).all()
    write_dataset(toy_source({"train": 3}), folder, overwrite=True)
    fsspec.filesystem("memory").put(str(folder / "manifest.json"), f"{url}/manifest.json")
    with pytest.raises(DataError, match="was changed while it was being read"):
        pickle.loads(sent)


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_resumed_stream_fetches_no_shard_that_is_past(tmp_path: Path, ranks: int) -> None:
    folder = tmp_path / "toy"
    write_dataset(toy_source({"train": 120}, shape=(1, 20, 20)), folder, shard_bytes=25_000)
    shards = ShardedDataset(folder, "train").entry.shards
    locality = Locality(lanes=2, window=2 * shards[0].samples)
    server = Server()
    for path in folder.iterdir():
        server.files[f"/{path.name}"] = path.read_bytes()
    with server.running():

        def stream(name: str, rank: int = 0, world_size: int = 1) -> SampleStream:
            dataset = ShardedDataset(server.url, "train", cache=Cache(tmp_path / name, limit_bytes=1 << 20))
            order = {"batch_size": 8, "seed": 0, "locality": locality}
            return SampleStream([dataset], **order, rank=rank, world_size=world_size, lookahead=0, readers=0)

        first = stream("first")
        shown = [batch.sample_B for batch in itertools.islice(iter(first), first.batches_per_epoch)]
        middle = 2 * first.batches_per_epoch // 3
        again = [stream(f"again-{rank}", rank, ranks) for rank in range(ranks)]
        before = {shard.file: server.sent(f"/{shard.file}") for shard in shards}
        left = []
        for each in again:
            each.load_state_dict(first.state_dict() | {"epoch": 0, "batch": middle})
            left += [batch.sample_B for batch in itertools.islice(iter(each), first.batches_per_epoch - middle)]
    needed = np.concatenate([batch.numpy() for batch in shown[middle:]])
    assert sorted(np.concatenate([batch.numpy() for batch in left])) == sorted(needed)
    ends = np.cumsum([shard.samples for shard in shards])
    touched = {shards[number].file for number in np.searchsorted(ends, needed, side="right")}
    fetched = {shard.file for shard in shards if server.sent(f"/{shard.file}") > before[shard.file]}
    assert fetched == touched
    assert len(touched) < 0.7 * len(shards)
