"""What a run leaves in its folder beside the curves reaches MLflow: once, also after the server or the run was away."""

from __future__ import annotations

import json
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow.entities import Dataset, DatasetInput, InputTag

from cluster.page import how_to_open
from cluster.store import Store
from cluster.system_metrics import sampled
from cluster.tracking import TrackedRun
from tests.cluster.test_tracking import PARAMS, steps_of, wait_for, write_steps

PICTURE = b"\x89PNG\r\n\x1a\n"
TEXTS = {"datasets.json": '[{"name": "chest", "address": "s3://key:secret@bucket/chest"}]'}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


def tracked(uri: str, out: Path, warnings: list[str] | None = None, experiment: str = "tests-files") -> TrackedRun:
    chest = Dataset("chest", "a" * 36, "local", '{"uri": "/data/chest"}')
    return TrackedRun(
        Store(uri),
        out,
        experiment=experiment,
        name="run",
        params=PARAMS,
        tags={},
        datasets=[DatasetInput(chest, [InputTag("mlflow.data.context", "training")])],
        texts=TEXTS,
        warn=([] if warnings is None else warnings).append,
        interval_s=0.05,
    )


def draw(out: Path, name: str) -> None:
    path = out / "figures" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(PICTURE + name.encode())


def stored(uri: str, run_id: str, folder: str = "") -> dict[str, int]:
    found: dict[str, int] = {}
    for each in Store(uri).client.list_artifacts(run_id, folder or None):
        found |= stored(uri, run_id, each.path) if each.is_dir else {each.path: each.file_size}
    return found


def content(uri: str, run_id: str, name: str, folder: Path) -> str:
    folder.mkdir(exist_ok=True)
    return Path(Store(uri).client.download_artifacts(run_id, name, str(folder))).read_text()


def test_documents_and_pictures_are_there_and_hold_no_password(tracking_uri: str, out: Path, tmp_path: Path) -> None:
    with tracked(tracking_uri, out) as run:
        (out / "config.yaml").write_text("data: http://ann:pw@host/shards?sig=abc\n")
        draw(out, "views/step-00000001.png")
        write_steps(out, range(1, 3))
    assert set(stored(tracking_uri, run.run_id)) == {"config.yaml", "datasets.json", "figures/views/step-00000001.png"}
    assert content(tracking_uri, run.run_id, "config.yaml", tmp_path / "a") == "data: http://host/shards\n"
    kept = json.loads(content(tracking_uri, run.run_id, "datasets.json", tmp_path / "a"))
    assert kept == [{"name": "chest", "address": "s3://bucket/chest"}]
    inputs = Store(tracking_uri).client.get_run(run.run_id).inputs.dataset_inputs
    assert [(each.dataset.name, each.dataset.digest) for each in inputs] == [("chest", "a" * 36)]
    assert {(tag.key, tag.value) for tag in inputs[0].tags} == {("mlflow.data.context", "training")}


def test_a_restart_sends_only_what_is_not_there(sqlite_uri: str, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tracked(sqlite_uri, out) as first:
        draw(out, "views/step-00000001.png")
    sent: list[str] = []
    with tracked(sqlite_uri, out) as second:
        send = second._delivery._send
        monkeypatch.setattr(second._delivery, "_send", lambda name: (sent.append(name), send(name)))
        draw(out, "embeddings/chest/step-00000010.png")
        wait_for(lambda: sent)
    assert second.run_id == first.run_id and sent == ["figures/embeddings/chest/step-00000010.png"]


@pytest.mark.slow
def test_what_a_killed_server_missed_is_there_when_it_is_back(
    new_tracking_server: Any, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr("cluster.tracking._PAUSE_AFTER_LOSS_S", 0.2)
    server, warnings = new_tracking_server, []
    with tracked(server.uri, out, warnings) as run:
        draw(out, "views/step-00000001.png")
        wait_for(lambda: "figures/views/step-00000001.png" in stored(server.uri, run.run_id))
        server.kill()
        draw(out, "views/step-00000002.png")
        began_s = time.monotonic()
        write_steps(out, range(1, 3))
        assert time.monotonic() - began_s < 1
        wait_for(lambda: warnings)
        server.start()
        wait_for(lambda: len(warnings) == 2)
    assert set(stored(server.uri, run.run_id)) == {
        "datasets.json", "figures/views/step-00000001.png", "figures/views/step-00000002.png"
    }  # fmt: skip
    assert steps_of(server.uri, run.run_id) == [1, 2]


def test_samples_of_a_machine_go_on_counting_after_a_restart(sqlite_uri: str, out: Path) -> None:
    key = "system/node-0/system_memory_usage_megabytes"
    with tracked(sqlite_uri, out) as run:
        for _ in range(2):
            before = len(steps_of(sqlite_uri, run.run_id, key))
            with sampled(out, 0, torch.device("cpu"), interval_s=0.05):
                wait_for(lambda seen=before: len(steps_of(sqlite_uri, run.run_id, key)) > seen + 1)
    samples = Store(sqlite_uri).client.get_metric_history(run.run_id, key)
    assert [each.step for each in samples] == list(range(1, len(samples) + 1))
    lines = [json.loads(line) for line in (out / "system" / "node-0.jsonl").read_text().splitlines()]
    assert [each.timestamp for each in samples] == [line["time_ms"] for line in lines]
    assert all(0 < each.value < 1e8 for each in samples)
    assert {"cpu_utilization_percentage", "disk_available_megabytes"} < set(lines[0])


def test_an_experiment_is_one_of_model_training_also_when_it_was_made_before(tracking_uri: str, out: Path) -> None:
    store, experiment = Store(tracking_uri), f"old-{uuid.uuid4().hex[:8]}"
    identifier = store.client.create_experiment(
        experiment, (out / "artifacts").as_uri() if tracking_uri.startswith("sqlite") else None
    )
    with tracked(tracking_uri, out, experiment=experiment) as run:
        pass
    assert run.experiment_id == identifier
    assert store.client.get_experiment(identifier).tags["mlflow.experimentKind"] == "custom_model_development"
    told = how_to_open(store, run.experiment_id, run.run_id)
    assert told.endswith(f"/#/experiments/{identifier}/runs/{run.run_id}?workflowType=machine_learning")
    assert ("mlflow server --backend-store-uri" in told) is tracking_uri.startswith("sqlite")
