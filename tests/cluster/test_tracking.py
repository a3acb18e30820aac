"""The curves in MLflow are those of metrics.jsonl, each step once, whatever happens to the server or the run."""

from __future__ import annotations

import json
import os
import signal
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import RegistryError
from cluster.metrics_file import MetricsFile, Point
from cluster.store import Store
from cluster.tracking import RUN_ID_FILE, TrackedRun, flatten
from tests.cluster.conftest import TrackingServer

PARAMS = {"seed": 3, "model": {"name": "medformer_nano"}, "data": {"sources": [{"path": "a"}, {"path": "b"}]}}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


def write_steps(out: Path, steps: range) -> None:
    """Append lines as the engine does."""
    with open(out / "metrics.jsonl", "a") as file:
        for step in steps:
            file.write(
                json.dumps({"step": step, "loss": 1 / (1 + step), "images_per_s": 100.0, "phase": "train"}) + "\n"
            )


def fail_after(out: Path, steps: range, error: BaseException) -> None:
    write_steps(out, steps)
    raise error


def tracked(uri: str, out: Path, warnings: list[str] | None = None) -> TrackedRun:
    return TrackedRun(
        Store(uri),
        out,
        experiment="tests",
        name="run",
        params=PARAMS,
        tags={"medformer.config_sha256": "0" * 64},
        warn=([] if warnings is None else warnings).append,
        interval_s=0.05,
    )


def wait_for(condition: Callable[[], Any], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def steps_of(uri: str, run_id: str, key: str = "loss") -> list[int]:
    return [metric.step for metric in Store(uri).client.get_metric_history(run_id, key)]


def test_a_run_has_its_parameters_its_curves_and_its_end(tracking_uri: str, out: Path) -> None:
    with tracked(tracking_uri, out) as run:
        write_steps(out, range(1, 2501))
    found = Store(tracking_uri).client.get_run(run.run_id)
    assert found.info.status == "FINISHED"
    assert found.data.params == {
        "seed": "3",
        "model.name": "medformer_nano",
        "data.sources.0.path": "a",
        "data.sources.1.path": "b",
    }
    assert found.data.tags["medformer.config_sha256"] == "0" * 64
    assert steps_of(tracking_uri, run.run_id) == list(range(1, 2501))
    assert set(found.data.metrics) == {"loss", "images_per_s"}
    assert (out / RUN_ID_FILE).read_text().strip() == run.run_id


def test_a_restart_continues_the_run_and_logs_each_step_once(tracking_uri: str, out: Path) -> None:
    first = tracked(tracking_uri, out)
    with pytest.raises(ValueError, match="a bug"), first:
        fail_after(out, range(1, 151), ValueError("a bug"))
    assert Store(tracking_uri).client.get_run(first.run_id).info.status == "FAILED"
    # The engine goes back to the checkpoint of step 100 and makes steps 101 to 150 again.
    lines = (out / "metrics.jsonl").read_text().splitlines(keepends=True)
    (out / "metrics.jsonl").write_text("".join(lines[:100]))
    with tracked(tracking_uri, out) as second:
        assert Store(tracking_uri).client.get_run(first.run_id).info.status == "RUNNING"
        write_steps(out, range(101, 201))
    assert second.run_id == first.run_id
    assert steps_of(tracking_uri, first.run_id) == list(range(1, 201))
    assert Store(tracking_uri).client.get_run(first.run_id).info.status == "FINISHED"


def test_an_interrupted_run_is_marked_as_killed(sqlite_uri: str, out: Path) -> None:
    run = tracked(sqlite_uri, out)
    with pytest.raises(KeyboardInterrupt), run:
        fail_after(out, range(1, 3), KeyboardInterrupt())
    assert Store(sqlite_uri).client.get_run(run.run_id).info.status == "KILLED"


def test_an_interruption_does_not_wait_for_a_server_that_hangs(new_tracking_server: TrackingServer, out: Path) -> None:
    server = new_tracking_server
    run = tracked(server.uri, out)
    assert server.process is not None
    os.killpg(server.process.pid, signal.SIGSTOP)
    began_s = time.monotonic()
    with pytest.raises(KeyboardInterrupt), run:
        fail_after(out, range(1, 3), KeyboardInterrupt())
    assert time.monotonic() - began_s < 5
    os.killpg(server.process.pid, signal.SIGCONT)


def test_a_run_that_was_asked_to_stop_is_not_finished(sqlite_uri: str, out: Path) -> None:
    with tracked(sqlite_uri, out) as run:
        run.stopped = True
    assert Store(sqlite_uri).client.get_run(run.run_id).info.status == "KILLED"


def test_a_run_unknown_to_the_store_is_made_anew(sqlite_uri: str, out: Path) -> None:
    (out / RUN_ID_FILE).write_text(uuid.uuid4().hex)
    with tracked(sqlite_uri, out) as run:
        write_steps(out, range(1, 3))
    assert steps_of(sqlite_uri, run.run_id) == [1, 2]


def test_a_killed_server_costs_one_line_and_gets_what_it_missed_when_it_is_back(
    new_tracking_server: Any, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr("cluster.tracking._PAUSE_AFTER_LOSS_S", 0.2)
    server = new_tracking_server
    warnings: list[str] = []
    with tracked(server.uri, out, warnings) as run:
        write_steps(out, range(1, 11))
        wait_for(lambda: len(steps_of(server.uri, run.run_id)) == 10)
        server.kill()
        began = time.monotonic()
        write_steps(out, range(11, 21))
        assert time.monotonic() - began < 1
        wait_for(lambda: warnings)
        write_steps(out, range(21, 31))
        time.sleep(1)
        assert len(warnings) == 1 and "is lost" in warnings[0] and "training goes on" in warnings[0]
        server.start()
        wait_for(lambda: len(warnings) == 2)
    assert "is back" in warnings[1]
    assert steps_of(server.uri, run.run_id) == list(range(1, 31))


def test_a_server_that_stays_away_neither_fails_nor_holds_up_the_end(
    new_tracking_server: Any, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    server = new_tracking_server
    warnings: list[str] = []
    with tracked(server.uri, out, warnings):
        server.kill()
        write_steps(out, range(1, 11))
        wait_for(lambda: warnings)
        ending = time.monotonic()
    assert time.monotonic() - ending < 5
    assert len(warnings) == 2 and "--resume sends what is missed" in warnings[1]


@pytest.mark.slow
def test_a_run_that_ends_just_after_its_server_is_back_is_there_in_full(
    new_tracking_server: Any, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    server = new_tracking_server
    warnings: list[str] = []
    with tracked(server.uri, out, warnings) as run:
        server.kill()
        write_steps(out, range(1, 11))
        wait_for(lambda: warnings)
        server.start()
    assert steps_of(server.uri, run.run_id) == list(range(1, 11))
    assert Store(server.uri).client.get_run(run.run_id).info.status == "FINISHED"


def test_a_run_is_refused_when_its_server_is_not_there_at_the_start(out: Path) -> None:
    with pytest.raises(RegistryError, match="does not answer"):
        tracked("http://127.0.0.1:9", out)
    assert not (out / RUN_ID_FILE).exists()


def test_the_metrics_file_gives_complete_lines_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    reader = MetricsFile(path)
    assert list(reader.new_points()) == []
    path.write_text('{"step": 1, "loss": 0.5, "nan": NaN, "note": "x", "flag": true}\n{"step": 2, "lo')
    assert list(reader.new_points()) == [Point("loss", 0.5, 1)]
    assert list(reader.new_points()) == []
    with open(path, "a") as file:
        file.write('ss": 0.25}\nnot json\n{"loss": 1.0}\n')
    assert list(reader.new_points()) == [Point("loss", 0.25, 2)]


def test_the_metrics_file_is_read_again_after_it_was_cut_back(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.25}\n')
    reader = MetricsFile(path)
    assert len(list(reader.new_points())) == 2
    # Cut back to step 1 and grown beyond its old length before the next look.
    path.write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.25, "lr": 1}\n{"step": 3, "loss": 0.125}\n')
    assert [point.step for point in reader.new_points()] == [1, 2, 2, 3]


def test_a_configuration_is_flattened_to_dotted_keys() -> None:
    nested = {"a": {"b": [1, {"c": None}], "d": []}, "e": "x" * 7000, "f": {}}
    assert dict(flatten(nested)) == {
        "a.b.0": "1",
        "a.b.1.c": "None",
        "a.d": "[]",
        "e": "x" * 6000,
        "f": "{}",
    }
