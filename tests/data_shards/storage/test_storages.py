"""Every kind of address: plain folders, file URLs, any file system of fsspec, and what is refused."""

from __future__ import annotations

import importlib.util
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from data_shards.storage import Cache, StoredFile, open_storage
from data_shards.storage.ranges import RANGE_BYTES
from data_shards.support.errors import DataError
from data_shards.support.secrets import shown
from tests.data_shards.storage import server as behaviour
from tests.data_shards.storage.files import QUICK, complete, content_of, fetched, listed
from tests.data_shards.storage.server import Server

CONTENT = content_of(0, 50_000)
FILE = listed("a.tar", CONTENT)


class Unruly(MemoryFileSystem):
    """A file system whose reads are told to go wrong, one after the other."""

    protocol = "unruly"
    faults: list[Callable[[], None]] = []
    reads: list[tuple[int, int]] = []

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        stripped: str = super()._strip_protocol(path.removeprefix("unruly://"))
        return stripped

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        self.reads.append((start or 0, end or 0))
        if self.faults:
            self.faults.pop(0)()
        content: bytes = super().cat_file(path, start=start, end=end, **options)
        return content


def fails(error: Exception) -> Callable[[], None]:
    def fault() -> None:
        raise error

    return fault


@pytest.fixture
def memory() -> Iterator[MemoryFileSystem]:
    fsspec.register_implementation("unruly", Unruly, clobber=True)
    Unruly.faults, Unruly.reads = [], []
    filesystem = MemoryFileSystem()
    yield filesystem
    filesystem.store.clear()


@pytest.mark.parametrize("form", [lambda folder: folder, str, lambda folder: folder.as_uri()])
def test_a_folder_of_this_machine_is_read_in_place(tmp_path: Path, form: Callable[[Path], str | Path]) -> None:
    folder = tmp_path / "with space and %"
    folder.mkdir()
    (folder / "a.tar").write_bytes(CONTENT)
    storage = pickle.loads(pickle.dumps(open_storage(form(folder), cache=None)))
    with storage.local("a.tar", size=FILE.size, sha256=FILE.sha256) as lease:
        assert lease.path == folder / "a.tar"
    assert storage.read_bytes("a.tar", 50_000) == CONTENT and storage.describe("a.tar") == str(folder / "a.tar")
    storage.prefetch([FILE])
    with pytest.raises(DataError, match=r"a.tar: more than 49999 bytes"):
        storage.read_bytes("a.tar", 49_999)
    with pytest.raises(DataError, match="b.tar: missing; the manifest lists it"):
        storage.local("b.tar", size=1, sha256="")
    with pytest.raises(DataError, match="a.tar: 50000 bytes, the manifest says 50001: truncated or damaged"):
        storage.local("a.tar", size=50_001, sha256="")
    with pytest.raises(DataError, match="manifest.json: no such file"):
        storage.read_bytes("manifest.json", 10)
    (folder / "inner").mkdir()
    with pytest.raises(DataError, match="inner: cannot be read: Is a directory"):
        storage.read_bytes("inner", 10)


@pytest.mark.parametrize("name", ["../a.tar", "/etc/passwd", "..", ".", "", "x\\y", "a\0b", "line\nbreak"])
def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    for storage in (
        open_storage(tmp_path, cache=None),
        open_storage("memory://shards", cache=Cache(tmp_path / "cache", 100)),
    ):
        with pytest.raises(DataError, match="expected a plain name without folders"):
            storage.local(name, size=1, sha256="0" * 64)
        with pytest.raises(DataError, match="expected a plain name without folders"):
            storage.read_bytes(name, 10)


def test_any_file_system_of_fsspec_is_read_through_the_cache(memory: MemoryFileSystem, tmp_path: Path) -> None:
    memory.pipe_file("/shards/a.tar", CONTENT)
    storage = open_storage("memory://shards", cache=Cache(tmp_path / "cache", 100_000), retries=QUICK)
    assert fetched(storage, FILE) == CONTENT and storage.read_bytes("a.tar", 50_000) == CONTENT
    memory.rm_file("/shards/a.tar")
    assert fetched(storage, FILE) == CONTENT  # the copy
    with pytest.raises(DataError, match=r"memory://shards/b.tar: no such file on the server"):
        storage.local("b.tar", size=5, sha256="0" * 64)
    with pytest.raises(DataError, match=r"memory://shards/manifest.json: no such file on the server"):
        storage.read_bytes("manifest.json", 10)


def test_large_files_come_in_ranges_and_only_the_failed_range_is_asked_for_again(
    memory: MemoryFileSystem, tmp_path: Path
) -> None:
    content = content_of(1, 2 * RANGE_BYTES + 1)
    memory.pipe_file("/shards/big.tar", content)
    storage = open_storage("unruly://shards", cache=Cache(tmp_path, 1 << 30), retries=QUICK)
    released = threading.Event()

    def stall() -> None:
        released.wait(20)

    Unruly.faults = [lambda: None, fails(OSError("token=hidden")), stall]
    assert fetched(storage, listed("big.tar", content)) == content
    released.set()
    second = (RANGE_BYTES, 2 * RANGE_BYTES)
    assert Unruly.reads == [(0, RANGE_BYTES), second, second, second, (2 * RANGE_BYTES, len(content))]


@pytest.mark.parametrize(
    "fault, message, reads",
    [
        (fails(PermissionError("key")), "unruly://shards/a.tar: access is denied$", 1),
        (fails(FileNotFoundError("key")), "unruly://shards/a.tar: no such file on the server$", 1),
        (fails(RuntimeError("key")), r"0 of 50000 bytes after 4 attempts; .* the read failed \(RuntimeError\)$", 4),
        (lambda: time.sleep(0.6), "0 of 50000 bytes after 4 attempts; the last one: no answer for 0.4 s$", 4),
    ],
)
def test_a_file_system_that_fails_is_one_error_without_its_own_words(
    memory: MemoryFileSystem, tmp_path: Path, fault: Callable[[], None], message: str, reads: int
) -> None:
    memory.pipe_file("/shards/a.tar", CONTENT)
    Unruly.faults = [fault] * 10
    with pytest.raises(DataError, match=message):
        fetched(open_storage("unruly://shards", cache=Cache(tmp_path, 100_000), retries=QUICK), FILE)
    assert len(Unruly.reads) == reads


@pytest.mark.parametrize(
    "size, message", [(49_999, "SHA-256 is not the one"), (50_001, "50000 of 50001 bytes after 4")]
)
def test_another_size_than_the_manifest_says_is_noticed(
    memory: MemoryFileSystem, tmp_path: Path, size: int, message: str
) -> None:
    memory.pipe_file("/shards/a.tar", CONTENT)
    storage = open_storage("memory://shards", cache=Cache(tmp_path, 100_000), retries=QUICK)
    with pytest.raises(DataError, match=message):
        storage.local("a.tar", size=size, sha256=FILE.sha256)
    assert complete(tmp_path) == []


@pytest.mark.parametrize(
    "url, message",
    [
        ("nonsense://bucket/x", r"nonsense://bucket/x: fsspec cannot open this address \(ValueError\)"),
        ("file://elsewhere/data", "names a folder of this machine"),
    ],
)
def test_addresses_that_cannot_be_opened_are_refused(tmp_path: Path, url: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_storage(url, cache=Cache(tmp_path, 100))


@pytest.mark.skipif(importlib.util.find_spec("s3fs") is not None, reason="s3fs is installed")
def test_a_missing_package_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="s3://bucket/x: the package that reads s3:// is not installed.*s3fs"):
        open_storage("s3://user:key@bucket/x?secret=1", cache=Cache(tmp_path, 100))


def test_remote_shards_need_a_cache() -> None:
    with pytest.raises(DataError, match="https://host/x: remote shards are read through a cache on this node"):
        open_storage("https://me:secret@host/x?token=hidden", cache=None)


@pytest.mark.parametrize(
    "url, expected",
    [
        ("https://u:p@host:8000/a/b?sig=1#x", "https://host:8000/a/b"),
        ("s3://key:secret/with@bucket/a", "s3://bucket/a"),
        ("https://host:80/a@b", "https://host:80/a@b"),
        ("simplecache::s3://u:p@bucket/a?x=1", "simplecache::s3://bucket/a"),
        ("memory://a/b", "memory://a/b"),
    ],
)
def test_shown_addresses_have_no_credentials(url: str, expected: str) -> None:
    assert shown(url) == expected


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def reading_ahead() -> bool:
    return any(thread.name == "read-ahead" for thread in threading.enumerate())


def test_read_ahead_brings_files_near_and_never_fails(server: Server, tmp_path: Path) -> None:
    contents = {f"{number}.tar": content_of(number, 30_000) for number in range(4)}
    files = [listed(name, content) for name, content in contents.items()]
    server.files.update({f"/{name}": content for name, content in list(contents.items())[:3]})
    server.always["/0.tar"] = behaviour.slowly(3, 0.05)
    storage = open_storage(server.url, cache=Cache(tmp_path, 100_000), retries=QUICK)
    unwelcome = [StoredFile("../x", 1, "0" * 64), StoredFile("huge.tar", 10**12, "1" * 64), files[3]]
    storage.prefetch([*files[:2], *unwelcome, files[2]])
    until(lambda: len(complete(tmp_path)) == 3)
    assert complete(tmp_path) == sorted(file.sha256 for file in files[:3])
    sent = len(server.requests)
    for file in files[:3]:
        assert fetched(storage, file) == contents[file.name]
    assert len(server.requests) == sent
    with pytest.raises(DataError, match=r"3.tar: no such file"):
        fetched(storage, files[3])


def test_read_ahead_ends_its_thread_and_starts_again(server: Server, tmp_path: Path) -> None:
    contents = [content_of(number, 1000) for number in range(2)]
    server.files.update({f"/{number}.tar": content for number, content in enumerate(contents)})
    storage = open_storage(server.url, cache=Cache(tmp_path, 100_000), retries=QUICK)
    for number, content in enumerate(contents):
        storage.prefetch([listed(f"{number}.tar", content)])
        until(lambda expected=number + 1: len(complete(tmp_path)) == expected and not reading_ahead())


def test_read_ahead_evicts_nothing_that_is_leased(server: Server, tmp_path: Path) -> None:
    contents = [content_of(number, 1000) for number in range(2)]
    server.files.update({f"/{number}.tar": content for number, content in enumerate(contents)})
    storage = open_storage(server.url, cache=Cache(tmp_path, 1500), retries=QUICK)
    first = listed("0.tar", contents[0])
    with storage.local(first.name, size=first.size, sha256=first.sha256):
        storage.prefetch([listed("1.tar", contents[1])])
        until(lambda: not reading_ahead())
        assert complete(tmp_path) == [first.sha256]
