"""One cache under many processes: one transfer for each file, the limit, leases, and processes that die."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from data_shards.storage import Cache, StoredFile, locks, open_storage
from data_shards.support.errors import DataError
from tests.data_shards.storage import server as behaviour
from tests.data_shards.storage.files import QUICK, complete, content_of, fetched, listed, partial_bytes
from tests.data_shards.storage.server import Server

ROOT = Path(__file__).resolve().parents[3]
SIZE = 400_000
Start = Callable[[Sequence[StoredFile], int], "subprocess.Popen[str]"]


@pytest.fixture
def files(server: Server) -> list[StoredFile]:
    contents = {f"{number}.tar": content_of(number, SIZE) for number in range(10)}
    server.files.update({f"/{name}": content for name, content in contents.items()})
    return [listed(name, content) for name, content in contents.items()]


@pytest.fixture
def start(server: Server, tmp_path: Path) -> Iterator[Start]:
    """Starts a process that reads files through the cache; it waits for a line before it begins."""
    started: list[subprocess.Popen[str]] = []

    def begin(files: Sequence[StoredFile], limit: int) -> subprocess.Popen[str]:
        words = [server.url, str(tmp_path / "cache"), str(limit), json.dumps([dataclasses.astuple(f) for f in files])]
        command = [sys.executable, str(Path(__file__).with_name("child.py")), *words]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        started.append(child)
        return child

    yield begin
    for child in started:
        child.kill()
        child.communicate()


def go(*children: subprocess.Popen[str]) -> None:
    for child in children:
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()


def finish(*children: subprocess.Popen[str]) -> None:
    for child in children:
        out, errors = child.communicate(timeout=60)
        assert out.endswith("done\n"), errors


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that happens in another process."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def test_four_processes_that_want_the_same_files_cause_one_transfer_each(
    server: Server, files: list[StoredFile], start: Start
) -> None:
    for file in files[:3]:
        server.always[f"/{file.name}"] = behaviour.slowly(5, 0.05)
    orders = [files[:3], files[2::-1], [files[1], files[2], files[0]], files[:3]]
    children = [start(order, 10 * SIZE) for order in orders]
    go(*children)
    finish(*children)
    assert sorted(request.path for request in server.requests) == ["/0.tar", "/1.tar", "/2.tar"]
    assert all(server.sent(f"/{file.name}") == SIZE for file in files[:3])


def test_another_process_goes_on_where_a_killed_one_stopped(
    server: Server, files: list[StoredFile], start: Start, tmp_path: Path
) -> None:
    server.next("/0.tar", behaviour.stalls_after(300_000))
    child = start(files[:1], 10 * SIZE)
    go(child)
    until(lambda: partial_bytes(tmp_path / "cache") == [300_000])
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert complete(tmp_path / "cache") == []
    storage = open_storage(server.url, cache=Cache(tmp_path / "cache", 10 * SIZE, wait_s=5), retries=QUICK)
    assert fetched(storage, files[0]) == server.files["/0.tar"]
    assert server.starts("/0.tar") == [0, 300_000] and server.requests[1].sent == 100_000


def test_a_waiting_process_takes_over_when_the_one_that_fetches_is_killed(
    server: Server, files: list[StoredFile], start: Start, tmp_path: Path
) -> None:
    server.next("/0.tar", behaviour.stalls_after(300_000))
    first, second = start(files[:1], 10 * SIZE), start(files[:1], 10 * SIZE)
    go(first)
    until(lambda: partial_bytes(tmp_path / "cache") == [300_000])
    go(second)
    time.sleep(0.3)
    assert len(server.requests) == 1  # it waits
    first.send_signal(signal.SIGKILL)
    finish(second)
    assert server.starts("/0.tar") == [0, 300_000]


def test_a_forked_child_does_not_hold_the_transfer_of_a_parent_that_died(
    server: Server, files: list[StoredFile], tmp_path: Path
) -> None:
    server.next("/0.tar", behaviour.stalls_after(300_000))
    cache = tmp_path / "cache"
    script = (
        "import os, pathlib, sys, threading, time\n"
        "from data_shards.storage import Cache, StoredFile, open_storage\n"
        f"storage = open_storage({server.url!r}, cache=Cache(pathlib.Path({str(cache)!r}), {10 * SIZE}))\n"
        f"storage.prefetch([StoredFile('0.tar', {SIZE}, {files[0].sha256!r})])\n"
        "sys.stdin.readline()\n"
        "child = os.fork()\n"
        "if child:\n"
        "    print(child, flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert parent.stdin is not None and parent.stdout is not None
    child = 0
    try:
        until(lambda: cache.exists() and partial_bytes(cache) == [300_000])
        parent.stdin.write("\n")
        parent.stdin.flush()
        child = int(parent.stdout.readline())
        parent.kill()
        parent.wait()
        storage = open_storage(server.url, cache=Cache(cache, 10 * SIZE, wait_s=5), retries=QUICK)
        assert fetched(storage, files[0]) == server.files["/0.tar"]
        assert server.starts("/0.tar") == [0, 300_000]
    finally:
        parent.kill()
        parent.wait()
        if child:
            os.kill(child, signal.SIGKILL)


def test_the_limit_holds_at_every_moment_while_processes_read_more_than_fits(
    server: Server, files: list[StoredFile], start: Start, tmp_path: Path
) -> None:
    cache, limit = tmp_path / "cache", 4 * SIZE + 1000
    for file in files:
        server.always[f"/{file.name}"] = behaviour.slowly(4, 0.004)
    children = [start(random.Random(seed).choices(files, k=40), limit) for seed in range(3)]
    go(*children)
    sizes = []
    while any(child.poll() is None for child in children):
        # Files are dropped under this lock only: what is seen below it was there at one moment.
        with locks.exclusive(cache / "cache.lock"):
            seen = {}
            for path in cache.iterdir():
                try:
                    state = path.stat()
                except FileNotFoundError:
                    continue
                seen[state.st_ino] = state.st_size
        sizes.append(sum(seen.values()))
        time.sleep(0.001)
    finish(*children)
    assert len(sizes) > 50 and 3 * SIZE < max(sizes) <= limit
    assert len(server.requests) > 20  # files were evicted and fetched again


def test_the_lease_of_another_process_protects_and_its_death_frees(
    server: Server, files: list[StoredFile], tmp_path: Path
) -> None:
    folder = tmp_path / "cache"
    storage = open_storage(server.url, cache=Cache(folder, 2 * SIZE, wait_s=0.3), retries=QUICK)
    for file in files[:2]:
        fetched(storage, file)
    script = (
        "import pathlib, sys\n"
        "from data_shards.storage import Cache, open_storage\n"
        f"storage = open_storage({server.url!r}, cache=Cache(pathlib.Path({str(folder)!r}), {2 * SIZE}))\n"
        "names = [word.split(':') for word in sys.argv[1:]]\n"
        f"leases = [storage.local(name, size={SIZE}, sha256=sha256) for name, sha256 in names]\n"
        "print('leased', flush=True)\n"
        "sys.stdin.readline()\n"
    )
    words = [f"{file.name}:{file.sha256}" for file in files[:2]]
    holder = subprocess.Popen(
        [sys.executable, "-c", script, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "leased\n"
        with pytest.raises(DataError, match=f"2.tar: no room for {SIZE} bytes .* limit of {2 * SIZE} bytes"):
            fetched(storage, files[2])
        assert complete(folder) == sorted(file.sha256 for file in files[:2])
    finally:
        holder.kill()
        holder.wait()
    assert fetched(storage, files[2]) == server.files["/2.tar"]
