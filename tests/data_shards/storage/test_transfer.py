"""Files come whole and right over a real server that misbehaves, or the error says what happened."""

from __future__ import annotations

import itertools
import pickle
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from data_shards.storage import Cache, Retries, Storage, open_storage
from data_shards.support.errors import DataError
from tests.data_shards.storage import server as behaviour
from tests.data_shards.storage.files import QUICK, complete, content_of, fetched, listed, partial_bytes
from tests.data_shards.storage.server import Behaviour, Server

ROOT = Path(__file__).resolve().parents[3]
SIZE = 3_000_000
CONTENT = content_of(0, SIZE)
FILE = listed("a.tar", CONTENT)
PATH = "/shards/a.tar"


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", 10 * SIZE, wait_s=5)


@pytest.fixture
def storage(server: Server, cache: Cache) -> Storage:
    server.files[PATH] = CONTENT
    return open_storage(f"{server.url}/shards", cache=cache, retries=QUICK)


def test_a_file_is_fetched_once_and_then_read_from_the_cache(server: Server, storage: Storage) -> None:
    for _ in range(3):
        assert fetched(storage, FILE) == CONTENT
    assert [request.sent for request in server.requests] == [SIZE]


def test_a_storage_pickles_and_finds_what_was_cached(server: Server, storage: Storage) -> None:
    assert fetched(storage, FILE) == CONTENT
    assert fetched(pickle.loads(pickle.dumps(storage)), FILE) == CONTENT
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "faults",
    [
        [behaviour.drops_after(1_000_000)],
        [behaviour.drops_after(0), behaviour.drops_after(1), behaviour.drops_after(2_999_998)],
        [behaviour.resets_at_once, behaviour.resets_at_once],
        [behaviour.stalls_after(1_200_000)],
        [behaviour.never_answers],
        [behaviour.status(500), behaviour.status(503), behaviour.status(429)],
        [behaviour.says_length(2_000_000)],
        [behaviour.says_length(4_000_000)],
        [behaviour.drops_after(1_000_000), behaviour.another_range],
        [behaviour.drops_after(1_000_000), behaviour.ignores_range],
        [behaviour.drops_after(1_000_000), behaviour.ignores_range_and_drops_after(1_500_000)],
        [behaviour.drops_after(1_000_000), behaviour.status(416)],
        [behaviour.corrupts(0)],
        [behaviour.corrupts(SIZE - 1)],
        [behaviour.drops_after(1_000_000), behaviour.corrupts(2_000_000)],
        [behaviour.without_length],
        [behaviour.sends(CONTENT[:-5])],
        [behaviour.sends(CONTENT + b"more")],
        [behaviour.sends(b"<html>please log in</html>")],
    ],
)
def test_after_any_fault_the_file_is_whole_and_right(server: Server, storage: Storage, faults: list[Behaviour]) -> None:
    server.next(PATH, *faults)
    assert fetched(storage, FILE) == CONTENT
    assert not server.script[PATH], "the fault did not happen"


def test_a_dropped_connection_costs_no_more_than_its_buffer(server: Server, cache: Cache) -> None:
    server.files[PATH] = CONTENT
    server.next(PATH, *[behaviour.drops_after(400_000)] * 7)
    patient = open_storage(f"{server.url}/shards", cache=cache, retries=Retries(attempts=10, stall_s=1, pause_s=0.001))
    assert fetched(patient, FILE) == CONTENT
    starts = server.starts(PATH)
    assert starts[0] == 0 and all(a + 400_000 - (128 << 10) <= b <= a + 400_000 for a, b in itertools.pairwise(starts))


def test_attempts_that_bring_a_mebibyte_do_not_wear_the_patience_out(server: Server, storage: Storage) -> None:
    big = content_of(1, 12 << 20)
    server.files["/shards/big.tar"] = big
    server.next("/shards/big.tar", *[behaviour.drops_after(3 << 19)] * 7)
    assert fetched(storage, listed("big.tar", big)) == big
    assert len(server.requests) >= 8 > QUICK.attempts


def test_what_has_arrived_outlives_a_failure(server: Server, storage: Storage, cache: Cache) -> None:
    server.next(PATH, behaviour.drops_after(700_000), *[behaviour.resets_at_once] * 9)
    with pytest.raises(DataError, match=r"a.tar: \d+ of 3000000 bytes after 4 attempts; the last one: the connection"):
        fetched(storage, FILE)
    (kept,) = partial_bytes(cache.folder)
    assert complete(cache.folder) == [] and 700_000 - (128 << 10) <= kept <= 700_000
    server.script[PATH].clear()
    assert fetched(storage, FILE) == CONTENT and server.starts(PATH)[-1] == kept


@pytest.mark.parametrize(
    "fault, message, requests",
    [
        (behaviour.drops_after(0), "0 of 3000000 bytes after 4 attempts; the last one: the connection ended in", 4),
        (behaviour.stalls_after(0), "0 of 3000000 bytes after 4 attempts; the last one: no byte for 0.4 s", 4),
        (behaviour.never_answers, "0 of 3000000 bytes after 4 attempts; the last one: no byte for 0.4 s", 4),
        (behaviour.status(503), "0 of 3000000 bytes after 4 attempts; the last one: the server answered HTTP 503", 4),
        (behaviour.status(403), "a.tar: the server answered HTTP 403", 1),
        (behaviour.status(404), r"a.tar: no such file on the server \(HTTP 404\)", 1),
        (behaviour.corrupts(1_000), "its SHA-256 is not the one in the manifest, fetched twice: it was changed on", 2),
        (behaviour.sends(CONTENT[:-1]), "the server has 2999999 bytes, the manifest says 3000000, fetched twice", 2),
        (behaviour.sends(CONTENT + b"."), "the server has 3000001 bytes, the manifest says 3000000, fetched twice", 2),
        (behaviour.sends(b""), "the server has 0 bytes, the manifest says 3000000, fetched twice", 2),
        (behaviour.redirects("/shards/a.tar"), r"the address leads nowhere \(TooManyRedirects\)", 10),
    ],
)
def test_a_fault_that_stays_is_one_error_after_a_bounded_number_of_requests(
    server: Server, storage: Storage, cache: Cache, fault: Behaviour, message: str, requests: int
) -> None:
    server.always[PATH] = fault
    with pytest.raises(DataError, match=message):
        fetched(storage, FILE)
    assert len(server.requests) == requests and complete(cache.folder) == []


def test_a_file_that_has_changed_during_a_pause_is_noticed_and_fetched_anew(server: Server, storage: Storage) -> None:
    old = content_of(9, SIZE)  # the beginning that arrives is of an older version
    server.next(PATH, lambda handler, content, request: behaviour.drops_after(800_000)(handler, old, request))
    assert fetched(storage, FILE) == CONTENT
    first, second, third = server.starts(PATH)
    assert first == third == 0 < second


def test_a_body_without_end_is_cut_off_before_it_outgrows_the_cache(
    server: Server, storage: Storage, cache: Cache
) -> None:
    server.always[PATH] = behaviour.endless
    with pytest.raises(DataError, match="the server has more than the 3000000 bytes of the manifest, fetched twice"):
        fetched(storage, FILE)
    assert len(server.requests) == 2 and partial_bytes(cache.folder) == []


def test_a_server_that_ignores_ranges_is_not_asked_again(server: Server, storage: Storage) -> None:
    server.next(PATH, behaviour.drops_after(1_000_000), behaviour.ignores_range)
    assert fetched(storage, FILE) == CONTENT and len(server.requests) == 2


def test_another_range_than_asked_for_is_not_taken(server: Server, storage: Storage) -> None:
    server.next(PATH, behaviour.drops_after(1_000_000), behaviour.another_range)
    assert fetched(storage, FILE) == CONTENT
    first, second, third = server.starts(PATH)
    assert first == 0 < second == third


def test_a_redirect_is_followed_with_the_range(server: Server, storage: Storage) -> None:
    server.files["/elsewhere/a.tar"] = CONTENT
    server.always[PATH] = behaviour.redirects("/elsewhere/a.tar")
    server.next("/elsewhere/a.tar", behaviour.drops_after(1_000_000))
    assert fetched(storage, FILE) == CONTENT
    first, second = server.starts("/elsewhere/a.tar")
    assert first == 0 < second


def test_the_server_is_asked_not_to_compress(server: Server, storage: Storage) -> None:
    fetched(storage, FILE)
    assert server.requests[0].headers["Accept-Encoding"] == "identity"


def test_names_and_query_strings_reach_the_server_and_no_secret_reaches_a_message(server: Server, cache: Cache) -> None:
    name = "50% of #1?.tar"
    server.files["/shards/50%25%20of%20%231%3F.tar"] = CONTENT
    host = server.url.removeprefix("http://")
    storage = open_storage(f"http://me:secret@{host}/shards/?token=hidden", cache=cache, retries=QUICK)
    assert fetched(storage, listed(name, CONTENT)) == CONTENT
    assert server.requests[0].headers["Authorization"].startswith("Basic ")
    server.next("/shards/b.tar", *[behaviour.status(401)])
    server.always["/shards/c.tar"] = behaviour.resets_at_once
    server.files["/shards/c.tar"] = CONTENT
    for missing in ("a.tar", "b.tar", "c.tar"):
        with pytest.raises(DataError, match=f"http://{host}/shards/{missing}") as caught:
            storage.local(missing, size=SIZE, sha256="0" * 64)
        assert "secret" not in str(caught.value) and "hidden" not in str(caught.value)
        assert caught.value.__cause__ is None and caught.value.__suppress_context__
    assert storage.describe("x.tar") == f"http://{host}/shards/x.tar"


def test_small_files_are_read_whole_within_their_limit(server: Server, storage: Storage) -> None:
    server.files["/shards/manifest.json"] = b'{"a": 1}'
    server.next("/shards/manifest.json", behaviour.status(500), behaviour.drops_after(3), behaviour.never_answers)
    assert storage.read_bytes("manifest.json", 8) == b'{"a": 1}'
    with pytest.raises(DataError, match="manifest.json: more than 7 bytes, expected a small file"):
        storage.read_bytes("manifest.json", 7)
    with pytest.raises(DataError, match="absent.json: no such file on the server"):
        storage.read_bytes("absent.json", 100)
    server.always["/shards/manifest.json"] = behaviour.drops_after(3)
    with pytest.raises(DataError, match="cannot be read after 4 attempts; the last one: the connection ended"):
        storage.read_bytes("manifest.json", 100)


def test_a_server_that_is_not_there_is_an_error_with_its_address(cache: Cache) -> None:
    storage = open_storage("http://127.0.0.1:9/shards", cache=cache, retries=QUICK)
    with pytest.raises(DataError, match=r"http://127.0.0.1:9/shards/a.tar: 0 of 3000000 .*the connection failed \(Cl"):
        fetched(storage, FILE)


def test_a_disk_that_refuses_to_grow_is_one_error_and_leaves_nothing(
    server: Server, storage: Storage, cache: Cache
) -> None:
    # The limit of a process on the size of its files is a refusal of the kernel in the middle of a write.
    script = (
        "import resource, signal, sys\n"
        "from data_shards.storage import Cache, open_storage\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({SIZE // 2}, {resource.RLIM_INFINITY}))\n"
        f"storage = open_storage({server.url + '/shards'!r}, cache=Cache({str(cache.folder)!r}, {10 * SIZE}))\n"
        f"storage.local('a.tar', size={SIZE}, sha256={FILE.sha256!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    last = done.stderr.strip().splitlines()[-1]
    assert "DataError" in last and "3000000 bytes cannot be stored in cache" in last and "File too large" in last
    assert complete(cache.folder) == [] and partial_bytes(cache.folder) == []
    assert fetched(storage, FILE) == CONTENT


def test_pauses_double_and_stay_below_their_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("data_shards.storage.transfer.time.sleep", slept.append)
    for fruitless in range(12):
        Retries(pause_s=0.5, longest_pause_s=30).pause(fruitless)
    bounds = [0.5, 0.5, 1, 2, 4, 8, 16, 30, 30, 30, 30, 30]
    assert all(bound / 2 <= pause <= bound for pause, bound in zip(slept, bounds, strict=True))
    assert len({pause / bound for pause, bound in zip(slept, bounds, strict=True)}) > 1
