"""Real searches on a Ray of their own: one trial fails, one is stopped early, the winner trains."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from cluster.session import members
from cluster.store import Store
from data_shards.sources.phantoms import Phantoms
from data_shards.support.documents import load
from data_shards.writing.writer import write_dataset
from pretrain.config import PretrainConfig
from tests.cluster.search.test_space import BASE, SEARCH

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(1800)]

ROOT = Path(__file__).resolve().parents[3]
_LIMIT_S = 1500


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "medformer", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'store.db'}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str], status: int) -> str:
    text, _ = process.communicate(timeout=_LIMIT_S)
    assert process.returncode == status, text
    assert "Traceback" not in text
    return text


def rows_of(out: Path) -> list[dict[str, str]]:
    with open(out / "trials.csv") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    base = {**BASE, "schedule": {"epochs": 100, "max_steps": 12, "warmup_fraction": 0.0}, "log_every_steps": 2}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(base | {"health": {"min_embedding_std": 0.0}}))
    write_dataset(Phantoms("phantom-knee-mri-2d", subjects=30, images_per_subject=2), tmp_path / "shards")
    return tmp_path


def test_one_trial_fails_one_is_stopped_early_and_the_winner_trains(folder: Path) -> None:
    space = {"optimizer.lr": {"grid": [0.003, 1e-9, 1e30]}}
    changes = {"space": space, "concurrent": 1, "early": {"grace": 4, "reduction": 2}}
    (folder / "search.yaml").write_text(yaml.safe_dump({**SEARCH, **changes}))
    text = finish(start(folder, "search", "search.yaml"), 0)
    rows = rows_of(folder / "found")
    assert [row["status"] for row in rows] == ["finished", "stopped", "failed"]
    assert 4 <= int(rows[1]["step"]) < 12 == int(rows[0]["step"])
    assert "trial 3 failed (optimizer.lr=1e+30): " in text and rows[2]["reason"] in text
    winner = load(PretrainConfig, folder / "found" / "winner.yaml")
    assert winner.optimizer.lr == 0.003

    client = Store(f"sqlite:///{folder / 'store.db'}").client
    runs = client.search_runs([client.get_experiment_by_name("search").experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = sorted((run for run in runs if run is not parent), key=lambda run: run.info.run_name)
    assert [run.info.run_name for run in children] == ["trial 1", "trial 2", "trial 3"]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert [run.info.status for run in (parent, *children)] == ["FINISHED", "FINISHED", "FINISHED", "FAILED"]
    assert children[0].data.params["optimizer.lr"] == "0.003" and "loss" in children[0].data.metrics
    assert parent.data.metrics["loss"] == pytest.approx(float(rows[0]["loss"]))

    process = start(folder, "pretrain", "found/winner.yaml", "cluster.threads_per_worker=1")
    assert "model bundle" in finish(process, 0)


def test_ctrl_c_leaves_no_process_and_resume_goes_on_with_the_same_trials(folder: Path) -> None:
    space = {"optimizer.lr": {"grid": [0.003, 0.001]}, "schedule.max_steps": {"grid": [400]}}
    (folder / "search.yaml").write_text(
        yaml.safe_dump({**SEARCH, "space": space, "concurrent": 1, "metric": "simclr/loss"})
    )
    process = start(folder, "search", "search.yaml")
    deadline = time.monotonic() + _LIMIT_S
    while not list(folder.glob("found/trials/*/metrics.jsonl")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
    time.sleep(5)
    process.send_signal(signal.SIGINT)
    assert "interrupted" in finish(process, 130)
    assert members(process.pid) == []
    begun = {path.name for path in (folder / "found" / "trials").iterdir()}
    text = finish(start(folder, "search", "search.yaml", "--resume"), 0)
    rows = rows_of(folder / "found")
    assert [row["status"] for row in rows] == ["finished", "finished"] and "best: trial" in text
    assert begun <= {row["folder"] for row in rows}


def test_a_fine_tuning_is_judged_within_its_labels_and_never_by_its_test_split(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 24), ("test", 8)):
        labels = np.arange(count) % 2
        images = rng.integers(0, 100, (count, 28, 28)) + 100 * labels[:, None, None]
        arrays |= {f"{split}_images": images.astype(np.uint8), f"{split}_labels": labels[:, None]}
    np.savez(tmp_path / "images.npz", **arrays)
    arrays["test_labels"] = 1 - arrays["test_labels"]
    np.savez(tmp_path / "turned.npz", **arrays)
    for name in ("images", "turned"):
        base = {"model": "medformer_nano", "data": f"{name}.npz", "folds": 2, "repeats": 1}
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(base))
        space = {"seed": {"grid": [0, 1]}}
        document = {"out": name, "finetune": "run.yaml", "space": space, "metric": "auc", "mode": "max"}
        (tmp_path / "search.yaml").write_text(yaml.safe_dump(document))
        finish(start(tmp_path, "search", "search.yaml"), 0)
    tables = [rows_of(tmp_path / name) for name in ("images", "turned")]
    assert [row["status"] for row in tables[0]] == ["finished", "finished"]
    assert [row["auc"] for row in tables[0]] == [row["auc"] for row in tables[1]]
    process = start(tmp_path, "finetune", "--config", "images/winner.yaml", "--out", "tuned")
    finish(process, 0)
