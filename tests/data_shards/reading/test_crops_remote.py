"""Crops of volumes behind a server: what is asked for is what the crops need, and what arrives is what was written."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest

from data_shards.reading.cropped import Crop, CroppedDataset
from data_shards.reading.reader import ShardedDataset
from data_shards.storage import Cache
from data_shards.storage.local import LocalFolder
from data_shards.storage.remote import CachedFolder
from data_shards.stream.sample_stream import SampleStream
from data_shards.support.errors import DataError
from tests.data_shards.reading.test_crops import volume, written
from tests.data_shards.storage.files import QUICK, content_of, listed
from tests.data_shards.storage.server import Server, corrupts, drops_after, ignores_range, resets_at_once, status

COUNT = 4


@pytest.fixture
def places(tmp_path: Path) -> Iterator[tuple[Path, Server]]:
    """Volumes of 1.5 MB, two to a shard, in a folder and behind a server."""
    written(tmp_path / "v", [volume(seed) for seed in range(COUNT)], shard_bytes=4 << 20)
    server = Server()
    for path in (tmp_path / "v").iterdir():
        server.files[f"/{path.name}"] = path.read_bytes()
    with server.running():
        yield tmp_path / "v", server


def opened(where: Path | str, cache: Path, *, whole: bool = False, limit: int = 1 << 30) -> CroppedDataset:
    crop = Crop(size=(10, 24, 24), per_volume=2)
    return CroppedDataset(where, "train", crop, seed=0, cache=Cache(cache, limit), whole=whole)


def tars(server: Server) -> int:
    return sum(server.sent(path) for path in server.files if path.endswith(".tar"))


def test_crops_of_a_server_are_those_of_the_folder_for_a_small_part_of_the_bytes(
    places: tuple[Path, Server], tmp_path: Path
) -> None:
    folder, server = places
    local, remote = opened(folder, tmp_path / "unused"), opened(server.url, tmp_path / "cache")
    np.testing.assert_array_equal(remote.read(np.arange(8), 3).stacked, local.read(np.arange(8), 3).stacked)
    stored = sum(shard.bytes for shard in local.entry.shards)
    # Two crops of each volume, each of 10 of its 40 slices; bands lie so near to each other that gaps are fetched too.
    assert tars(server) <= stored / 2 and not list((tmp_path / "cache").glob("*.partial"))
    assert {path.stat().st_size for path in (tmp_path / "cache").glob("*.file")} == {
        shard.index_bytes for shard in local.entry.shards
    }


def test_a_shard_that_is_in_the_cache_is_not_asked_for_again(places: tuple[Path, Server], tmp_path: Path) -> None:
    folder, server = places
    ShardedDataset(server.url, "train", cache=Cache(tmp_path / "cache", 1 << 30)).read(np.arange(COUNT))
    before = tars(server)
    found = opened(server.url, tmp_path / "cache").read(np.arange(8)).stacked
    np.testing.assert_array_equal(found, opened(folder, tmp_path / "unused").read(np.arange(8)).stacked)
    assert tars(server) == before


def test_whole_shards_are_fetched_once_and_kept_when_that_is_asked_for(
    places: tuple[Path, Server], tmp_path: Path
) -> None:
    folder, server = places
    dataset = opened(server.url, tmp_path / "cache", whole=True)
    for epoch in range(3):
        expected = opened(folder, tmp_path / "unused").read(np.arange(8), epoch).stacked
        np.testing.assert_array_equal(dataset.read(np.arange(8), epoch).stacked, expected)
    assert tars(server) == sum(shard.bytes for shard in dataset.entry.shards)


def test_reading_ahead_fetches_indices_and_no_shard(places: tuple[Path, Server], tmp_path: Path) -> None:
    folder, server = places
    local, remote = opened(folder, tmp_path / "unused"), opened(server.url, tmp_path / "cache", limit=1 << 20)
    streams = [SampleStream([dataset], batch_size=3, seed=0) for dataset in (local, remote)]
    for mine, theirs, _ in zip(*streams, range(6), strict=False):
        assert (mine.images == theirs.images).all() and mine.sample_B.tolist() == theirs.sample_B.tolist()


def test_a_connection_that_breaks_is_taken_up_where_it_broke(places: tuple[Path, Server], tmp_path: Path) -> None:
    folder, server = places
    remote = opened(server.url, tmp_path / "cache")
    remote._shards.storage._retries = QUICK
    (path,) = {f"/{shard.file}" for shard in remote.entry.shards[:1]}
    server.next(path, drops_after(5000), resets_at_once, status(503), drops_after(1))
    expected = opened(folder, tmp_path / "unused").read(np.arange(4)).stacked
    np.testing.assert_array_equal(remote.read(np.arange(4)).stacked, expected)


@pytest.mark.parametrize(
    "behaviour, message",
    [
        (ignores_range, "the server gives whole files alone: it ignores byte ranges"),
        (status(404), r"no such file on the server \(HTTP 404\)"),
        (resets_at_once, "0 of the [0-9]+ bytes from [0-9]+ on after 4 attempts; the last one: the connection"),
    ],
)
def test_a_server_that_gives_no_part_is_named(
    places: tuple[Path, Server], tmp_path: Path, behaviour: object, message: str
) -> None:
    server = places[1]
    remote = opened(server.url, tmp_path / "cache")
    remote._shards.storage._retries = QUICK
    server.always[f"/{remote.entry.shards[0].file}"] = behaviour
    with pytest.raises(DataError, match=rf"toy-train-000000\.tar: {message}"):
        remote.read(np.arange(1))
    assert threading.active_count() < 50


def test_bits_that_flip_on_the_way_and_files_that_were_changed_are_found(
    places: tuple[Path, Server], tmp_path: Path
) -> None:
    server = places[1]
    remote = opened(server.url, tmp_path / "cache")
    path = f"/{remote.entry.shards[0].file}"
    content = server.files[path]
    server.files[path] = bytes(byte ^ 1 for byte in content[: 1 << 21]) + content[1 << 21 :]
    with pytest.raises(DataError, match="damaged: the pixels of sample v-000 fail their CRC-32"):
        remote.read(np.arange(1))
    server.files[path] = content + b"more"
    with pytest.raises(DataError, match=r"the server has \d+ bytes, the manifest says"):
        remote.read(np.arange(1))


@pytest.mark.parametrize("protocol", ["file", "http", "memory"])
def test_spans_of_any_storage_are_those_of_the_file(tmp_path: Path, protocol: str) -> None:
    """Near and far, across what one request brings, and more of them than requests on their way."""
    content = content_of(1, 12 << 20)
    file = listed("a.tar", content)
    random = np.random.default_rng(0)
    ends = np.unique(random.integers(0, len(content), 60)).tolist()
    spans = [(start, stop) for start, stop in zip(ends[::2], ends[1::2], strict=False)]
    spans += [(len(content) - 3, len(content))] if spans[-1][1] < len(content) - 3 else []
    server = Server()
    server.files["/a.tar"] = content
    memory = f"memory://{uuid.uuid4().hex}"
    fsspec.filesystem("memory").pipe(f"{memory}/a.tar", content)
    (tmp_path / "a.tar").write_bytes(content)
    with server.running():
        where = {"http": server.url, "memory": memory}
        storage = (
            LocalFolder(tmp_path)
            if protocol == "file"
            else CachedFolder(where[protocol], Cache(tmp_path / "cache", 1 << 30), QUICK)
        )
        found = [bytes(piece) for piece in storage.spans("a.tar", spans, size=file.size, sha256=file.sha256)]
        assert found == [content[start:stop] for start, stop in spans]
        for piece in storage.spans("a.tar", spans, size=file.size, sha256=file.sha256):
            assert len(piece)
            break  # what is left of the requests is given up


def test_a_flip_of_one_bit_on_the_way_is_found(places: tuple[Path, Server], tmp_path: Path) -> None:
    server = places[1]
    remote = opened(server.url, tmp_path / "cache")
    shard = remote.entry.shards[0]
    remote.read(np.arange(1))
    request = next(each for each in server.requests if each.path.endswith(".tar"))
    server.always[f"/{shard.file}"] = corrupts(request.start + 7)
    with pytest.raises(DataError, match="fail their CRC-32"):
        remote.read(np.arange(1))
