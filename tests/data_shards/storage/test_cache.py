"""The cache within one process: what is kept, what goes, what is found damaged."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from data_shards.storage import Cache, Lease, Storage, StoredFile, locks, open_storage
from data_shards.support.errors import DataError
from tests.data_shards.storage import server as behaviour
from tests.data_shards.storage.files import QUICK, complete, content_of, fetched, listed, partial_bytes
from tests.data_shards.storage.server import Server

SIZE = 50_000


@pytest.fixture
def files(server: Server) -> list[StoredFile]:
    contents = {f"{number}.tar": content_of(number, SIZE) for number in range(6)}
    server.files.update({f"/{name}": content for name, content in contents.items()})
    return [listed(name, content) for name, content in contents.items()]


def through(server: Server, cache: Cache) -> Storage:
    return open_storage(server.url, cache=cache, retries=QUICK)


def lease(storage: Storage, file: StoredFile) -> Lease:
    return storage.local(file.name, size=file.size, sha256=file.sha256)


def test_the_least_recently_used_file_goes_first_also_after_a_restart(
    server: Server, files: list[StoredFile], tmp_path: Path
) -> None:
    for turn in (0, 1, 2, 0):
        fetched(through(server, Cache(tmp_path, 3 * SIZE)), files[turn])
    fetched(through(server, Cache(tmp_path, 3 * SIZE)), files[3])
    assert complete(tmp_path) == sorted(files[kept].sha256 for kept in (0, 2, 3))
    assert len(server.requests) == 4


def test_a_leased_file_is_spared_and_is_free_after_its_release(
    server: Server, files: list[StoredFile], tmp_path: Path
) -> None:
    storage = through(server, Cache(tmp_path, 2 * SIZE, wait_s=0.2))
    first, second = lease(storage, files[0]), lease(storage, files[0])
    fetched(storage, files[1])
    fetched(storage, files[2])
    assert complete(tmp_path) == sorted([files[0].sha256, files[2].sha256])
    first.release()
    first.release()
    fetched(storage, files[3])
    assert files[0].sha256 in complete(tmp_path)  # the second lease
    second.release()
    fetched(storage, files[4])
    assert complete(tmp_path) == sorted([files[3].sha256, files[4].sha256])


def test_a_lease_that_is_forgotten_is_released(server: Server, files: list[StoredFile], tmp_path: Path) -> None:
    storage = through(server, Cache(tmp_path, SIZE, wait_s=0.2))
    forgotten = lease(storage, files[0])
    del forgotten
    assert fetched(storage, files[1]) == server.files["/1.tar"]


def test_who_waits_for_room_gets_it_when_a_lease_is_released(
    server: Server, files: list[StoredFile], tmp_path: Path
) -> None:
    storage = through(server, Cache(tmp_path, SIZE, wait_s=20))
    held = lease(storage, files[0])
    timer = threading.Timer(0.3, held.release)
    timer.start()
    assert fetched(storage, files[1]) == server.files["/1.tar"]
    timer.join()


def test_a_cache_full_of_leased_files_is_an_error_that_names_limit_and_need(
    server: Server, files: list[StoredFile], tmp_path: Path
) -> None:
    storage = through(server, Cache(tmp_path, 2 * SIZE + 10, wait_s=0.2))
    with (
        lease(storage, files[0]),
        lease(storage, files[1]),
        pytest.raises(
            DataError,
            match=f"2.tar: no room for {SIZE} bytes after .* limit of {2 * SIZE + 10} bytes, and {2 * SIZE} bytes in",
        ),
    ):
        lease(storage, files[2])
    assert len(complete(tmp_path)) == 2 and partial_bytes(tmp_path) == [] and len(server.requests) == 2


def test_nothing_is_evicted_when_that_would_not_be_enough(
    server: Server, files: list[StoredFile], tmp_path: Path
) -> None:
    server.files["/large.tar"] = content = content_of(9, 2 * SIZE)
    storage = through(server, Cache(tmp_path, 3 * SIZE, wait_s=0.1))
    fetched(storage, files[0])
    with (
        lease(storage, files[1]),
        lease(storage, files[2]),
        pytest.raises(DataError, match=f"large.tar: no room for {2 * SIZE} bytes"),
    ):
        lease(storage, listed("large.tar", content))
    assert files[0].sha256 in complete(tmp_path)
    assert fetched(storage, listed("large.tar", content)) == content


def test_a_transfer_of_another_that_makes_progress_is_waited_for(
    server: Server, files: list[StoredFile], tmp_path: Path
) -> None:
    server.always["/0.tar"] = behaviour.slowly(8, 0.3)
    storage = through(server, Cache(tmp_path, 2 * SIZE, wait_s=0.9))
    storage.prefetch(files[:1])
    while not partial_bytes(tmp_path):
        time.sleep(0.01)
    assert fetched(storage, files[0]) == server.files["/0.tar"] and len(server.requests) == 1


def test_a_transfer_of_another_that_stands_still_is_not_waited_for_for_ever(
    server: Server, files: list[StoredFile], tmp_path: Path
) -> None:
    server.always["/0.tar"] = behaviour.never_answers
    storage = through(server, Cache(tmp_path, 2 * SIZE, wait_s=0.3))
    storage.prefetch(files[:1])
    while not partial_bytes(tmp_path):
        time.sleep(0.01)
    with pytest.raises(
        DataError, match="0.tar: another process of this node fetches it and made no progress for 0.3 s"
    ):
        lease(storage, files[0])


def test_a_file_larger_than_the_cache_is_refused_at_once(
    server: Server, files: list[StoredFile], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=f"0.tar: {SIZE} bytes, more than the limit of {SIZE - 1} bytes of cache"):
        lease(through(server, Cache(tmp_path, SIZE - 1)), files[0])
    assert server.requests == []
    with pytest.raises(DataError, match="a limit of 0 bytes"):
        Cache(tmp_path, 0)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be made"):
        Cache(tmp_path / "file" / "cache", 1)


def test_files_of_others_are_neither_deleted_nor_counted(
    server: Server, files: list[StoredFile], tmp_path: Path
) -> None:
    foreign = ["notes.txt", "a" * 64, f"{'A' * 64}.5.file", f"{'0' * 63}.5.file", f"{'0' * 64}.x.file"]
    for name in foreign:
        (tmp_path / name).write_bytes(bytes(3 * SIZE))
    (tmp_path / f"{'0' * 64}.7.file").mkdir()
    (tmp_path / f"{'1' * 64}.7.file").symlink_to(tmp_path / "notes.txt")
    storage = through(server, Cache(tmp_path, 2 * SIZE))
    for file in files:
        fetched(storage, file)
    assert all((tmp_path / name).stat().st_size == 3 * SIZE for name in foreign)
    assert (tmp_path / f"{'0' * 64}.7.file").is_dir() and (tmp_path / f"{'1' * 64}.7.file").is_symlink()


def test_equal_names_of_different_datasets_do_not_meet_and_equal_files_are_shared(
    server: Server, tmp_path: Path
) -> None:
    contents = [content_of(7, SIZE), content_of(8, SIZE), content_of(7, SIZE)]
    for number, content in enumerate(contents):
        server.files[f"/{number}/train.tar"] = content
    cache = Cache(tmp_path, 10 * SIZE)
    for number, content in enumerate(contents):
        storage = open_storage(f"{server.url}/{number}", cache=cache, retries=QUICK)
        assert fetched(storage, listed("train.tar", content)) == content
    assert [request.path for request in server.requests] == ["/0/train.tar", "/1/train.tar"]


def test_a_beginning_that_nobody_completes_makes_room_like_any_other_file(
    server: Server, files: list[StoredFile], tmp_path: Path
) -> None:
    storage = through(server, Cache(tmp_path, 2 * SIZE, wait_s=0.2))
    server.always["/0.tar"] = behaviour.drops_after(SIZE // 10)
    with pytest.raises(DataError, match="after 4 attempts"):
        lease(storage, files[0])
    (kept,) = partial_bytes(tmp_path)
    assert 0 < kept <= 4 * SIZE // 10
    fetched(storage, files[1])
    fetched(storage, files[2])
    assert complete(tmp_path) == sorted([files[1].sha256, files[2].sha256]) and partial_bytes(tmp_path) == []


@pytest.mark.parametrize("check", [False, True])
def test_a_damaged_copy_is_fetched_again(server: Server, files: list[StoredFile], tmp_path: Path, check: bool) -> None:
    storage = through(server, Cache(tmp_path, 2 * SIZE, check=check))
    fetched(storage, files[0])
    (copy,) = tmp_path.glob("*.file")
    if check:
        content = bytearray(copy.read_bytes())
        content[77] ^= 4
        copy.write_bytes(content)
    else:
        os.truncate(copy, SIZE - 1)
    assert fetched(storage, files[0]) == server.files["/0.tar"] and len(server.requests) == 2


def test_a_beginning_that_is_wrong_or_too_long_is_fetched_anew(
    server: Server, files: list[StoredFile], tmp_path: Path
) -> None:
    storage = through(server, Cache(tmp_path, 3 * SIZE))
    for file, junk in zip(files, (bytes(1000), bytes(SIZE), bytes(SIZE + 1)), strict=False):
        (tmp_path / f"{file.sha256}.{file.size}.partial").write_bytes(junk)
        assert fetched(storage, file) == server.files[f"/{file.name}"]
    whole = files[3]  # killed between the last byte and the new name: nothing is transferred
    (tmp_path / f"{whole.sha256}.{whole.size}.partial").write_bytes(server.files["/3.tar"])
    assert fetched(storage, whole) == server.files["/3.tar"] and server.sent("/3.tar") == 0


def test_threads_of_a_process_share_one_transfer(server: Server, files: list[StoredFile], tmp_path: Path) -> None:
    server.always["/0.tar"] = behaviour.slowly(4, 0.05)
    storage = through(server, Cache(tmp_path, 2 * SIZE))
    contents: list[bytes] = []
    threads = [threading.Thread(target=lambda: contents.append(fetched(storage, files[0]))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert contents == [server.files["/0.tar"]] * 6 and server.sent("/0.tar") == SIZE


def test_an_empty_file_is_no_special_case(server: Server, tmp_path: Path) -> None:
    server.files["/empty.tar"] = b""
    assert fetched(through(server, Cache(tmp_path, 1)), listed("empty.tar", b"")) == b""


def test_only_the_user_can_read_the_copies(server: Server, files: list[StoredFile], tmp_path: Path) -> None:
    fetched(through(server, Cache(tmp_path / "new", 2 * SIZE)), files[0])
    assert (tmp_path / "new").stat().st_mode & 0o077 == 0
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "new").iterdir())


def test_a_file_becomes_complete_only_under_the_lock_under_which_room_is_counted(tmp_path: Path) -> None:
    # A listing that met neither the old nor the new name of a file would find too much room.
    file = listed("0.tar", content_of(0, SIZE))
    written, go = threading.Event(), threading.Event()

    def fetch(descriptor: int) -> None:
        os.write(descriptor, content_of(0, SIZE))
        written.set()
        assert go.wait(30)

    thread = threading.Thread(target=lambda: Cache(tmp_path, 2 * SIZE).lease(file, fetch, "0.tar").release())
    thread.start()
    assert written.wait(30)
    with locks.exclusive(tmp_path / "cache.lock"):
        go.set()
        time.sleep(0.3)
        assert complete(tmp_path) == [] and partial_bytes(tmp_path) == [SIZE]
    thread.join(30)
    assert complete(tmp_path) == [file.sha256]
