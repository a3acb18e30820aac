"""Processes that promote at the same time leave one story: the alias is where its history says, and no move is lost."""

from __future__ import annotations

import json
import random
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from mlflow import MlflowClient

from cluster import aliases
from cluster.errors import ClusterError
from cluster.history import AliasMove, as_tag, new_move, newest, read_moves
from cluster.registry import Registry
from medformer.cli import main
from tests.cluster.conftest import TrackingServer

PROCESSES, TURNS = 3, 4
PROMOTE = """
import json, sys, time
from cluster.registry import Registry
uri, name, own, turns = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
registry = Registry(uri)
print("ready", flush=True)
sys.stdin.readline()
for turn in range(turns):
    promotion = registry.promote(name, str(1 + (own + turn) % 3), "champion")
    print(json.dumps([promotion.move.version, promotion.holds.version]), flush=True)
"""


@contextmanager
def slow(server: TrackingServer) -> Iterator[str]:
    """The address of a server that passes on what it is sent after 0 to 60 ms."""
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source: socket.socket, target: socket.socket, delay_s: float) -> None:
        try:
            while data := source.recv(1 << 16):
                time.sleep(random.random() * delay_s)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            source.close()
            target.close()

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            upstream = socket.create_connection(("127.0.0.1", server.port))
            threading.Thread(target=pump, args=(client, upstream, 0.06), daemon=True).start()
            threading.Thread(target=pump, args=(upstream, client, 0.06), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.close()


@pytest.mark.parametrize("store", ["sqlite", pytest.param("slow server", marks=pytest.mark.slow)])
def test_promotions_at_the_same_time_leave_the_alias_where_the_history_ends(
    store: str, make_bundle: Callable[..., object], request: pytest.FixtureRequest
) -> None:
    name = f"nano-{uuid.uuid4().hex[:8]}"
    if store == "sqlite":
        race(request.getfixturevalue("sqlite_uri"), name, make_bundle)
    else:
        with slow(request.getfixturevalue("tracking_server")) as uri:
            race(uri, name, make_bundle)


def race(uri: str, name: str, make_bundle: Callable[..., object]) -> None:
    registry = Registry(uri)
    for seed in (1, 2, 3):
        registry.publish(make_bundle(seed=seed), name)  # type: ignore[arg-type]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROMOTE, uri, name, str(own), str(TURNS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for own in range(PROCESSES)
    ]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    promoted = []
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        stdout, _ = process.communicate(timeout=240)
        assert process.returncode == 0
        promoted += [json.loads(line)[0] for line in stdout.splitlines()]
    details = registry.show(name)
    assert details.unrecorded == ()
    assert details.aliases == {"champion": details.history[-1].version}
    assert sorted(move.version for move in details.history) == sorted(promoted)
    assert len(details.history) == PROCESSES * TURNS
    versions = [None, *(move.version for move in details.history)]
    assert [move.previous for move in details.history] == versions[:-1]


def tags_of(*moves: AliasMove) -> dict[str, str]:
    return dict(map(as_tag, moves))


def test_of_two_moves_made_at_the_same_time_the_later_one_comes_after_the_earlier() -> None:
    first = new_move("champion", "1", None, ())
    left, right = new_move("champion", "2", "1", [first]), new_move("champion", "3", "1", [first])
    moves = read_moves(tags_of(right, left, first))
    assert [(move.previous, move.version) for move in moves] == [(None, "1"), ("1", "2"), ("2", "3")]


def test_a_clock_that_is_behind_does_not_put_a_promotion_into_the_past() -> None:
    first = AliasMove("champion", "1", None, "2030-01-01T00:00:00.000000+00:00", "ahead", number=1)
    second = new_move("champion", "2", "1", [first])
    assert second.time < first.time
    assert newest(read_moves(tags_of(first, second)), "champion") == second


@pytest.mark.parametrize("text", ["{}", "x", "[1]", '{"alias": "a", "version": "1", "number": "2"}'])
def test_a_tag_that_records_no_promotion_is_named(text: str) -> None:
    key, _ = as_tag(new_move("champion", "1", None, ()))
    with pytest.raises(ClusterError, match=f"the tag '{key}' of the registered model does not record a promotion"):
        read_moves({key: text})


def test_what_a_later_version_writes_into_a_tag_is_passed_over() -> None:
    move = new_move("champion", "1", None, ())
    key, text = as_tag(move)
    assert read_moves({key: text[:-1] + ', "reason": "better"}'}) == (move,)


def test_moves_that_were_recorded_without_a_number_come_first_in_the_order_of_their_times() -> None:
    key, text = as_tag(AliasMove("champion", "1", None, "2026-01-01T00:00:00.000000+00:00", "root"))
    content = json.loads(text)
    del content["number"]
    old = {key: json.dumps(content)}
    moves = read_moves(old)
    assert [move.version for move in moves] == ["1"]
    later = new_move("champion", "2", "1", moves)
    assert [move.version for move in read_moves(old | tags_of(later))] == ["1", "2"]


def test_who_is_overtaken_is_told_where_the_alias_is(
    sqlite_uri: str,
    make_bundle: Callable[..., object],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = f"nano-{uuid.uuid4().hex[:8]}"
    registry = Registry(sqlite_uri)
    for seed in (1, 2):
        registry.publish(make_bundle(seed=seed), name)  # type: ignore[arg-type]
    # The other one reads before and writes after our record, as a slow process would.
    follow = aliases.follow_history

    def overtaken(client: MlflowClient, model: str, alias: str) -> object:
        key, value = as_tag(new_move("champion", "2", None, ()))
        client.set_registered_model_tag(model, key, value)
        return follow(client, model, alias)

    monkeypatch.setattr(aliases, "follow_history", overtaken)
    assert main(["models", "promote", f"{name}:1", "champion", "--tracking-uri", sqlite_uri]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{name}@champion went to version 1, and then to version 2, by ")
    details = registry.show(name)
    assert details.aliases == {"champion": "2"} and details.unrecorded == ()
