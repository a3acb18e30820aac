"""How long a run stands still after a worker is killed: ours beside a plain loop of Ray Train with its defaults."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import yaml

from benchmarks.table import Table
from data_shards.sources.phantoms import Phantoms
from data_shards.writing.writer import write_dataset

KILLS = 5
EVERY = 10
_AFTER = 3
"""Steps since the newest checkpoint when the worker is killed; they are taken again."""
_LIMIT_S = 600
_NETWORK = {"embed_dim": 32, "depth": 1, "num_heads": 2, "latents": 2, "latents_per_entry": 1}


def run() -> Table:
    """A row for each of both."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_dataset(Phantoms("phantom-knee-mri-2d", subjects=77, images_per_subject=2), folder / "shards")
        rows = []
        for title, start in (("medformer pretrain", _ours), ("Ray Train, its defaults", _plain)):
            times = _recoveries(*start(folder), folder)
            rows.append((title, *(f"{value:.1f}" for value in (statistics.median(times), min(times), max(times)))))
    return Table(
        title="Training goes on after a worker was killed",
        command="python -m benchmarks recovery",
        columns=("", "seconds, median", "least", "most"),
        rows=tuple(rows),
        remarks=f"{KILLS} kills (SIGKILL of one of two workers on this machine, {_AFTER} steps after a checkpoint), "
        f"until a step is taken that was not taken before; a checkpoint every {EVERY} steps. Ours is the whole "
        "command: shards, exact stream, SimCLR, DeepSpeed, tracking into SQLite. The plain loop has the same network "
        "and batch, images drawn anew in memory, DistributedDataParallel, `report` with a checkpoint, and a "
        "`TorchTrainer` to which only the number of workers and of failures is told.",
    )


def _recoveries(command: list[str], steps: Callable[[], int], folder: Path) -> list[float]:
    """Seconds of each kill."""
    environment = os.environ | {
        "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu",
    }  # fmt: skip
    log = folder / "log"
    with open(log, "wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment, start_new_session=True)
    times: list[float] = []

    def until(happened: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _LIMIT_S
        while not happened():
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the run ended, or nothing happened:\n{log.read_text()[-4000:]}")
            time.sleep(0.01)

    try:
        for _ in range(KILLS):
            first = steps() + EVERY
            until(lambda first=first: steps() > first and steps() % EVERY == _AFTER)  # type: ignore[misc]
            at, victim = steps(), _workers()[-1]
            began_s = time.monotonic()
            victim.send_signal(signal.SIGKILL)
            until(lambda victim=victim: not victim.is_running() or victim.status() == "zombie")  # type: ignore[misc]
            at = max(at, steps())
            until(lambda at=at: steps() > at)  # type: ignore[misc]
            times.append(time.monotonic() - began_s)
    finally:
        process.terminate()  # it ends its Ray
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for worker in _workers():
            worker.kill()
    return times


def _workers() -> list[psutil.Process]:
    """The workers of Ray Train on this machine, oldest first."""
    found = []
    for process in psutil.process_iter(["cmdline", "create_time"]):
        words = process.info["cmdline"]
        if words and words[0].startswith("ray::RayTrainWorker"):
            found.append(process)
    return sorted(found, key=lambda process: process.info["create_time"])


def _ours(folder: Path) -> tuple[list[str], Callable[[], int]]:
    document = {
        "out": str(folder / "ours"),
        "data": {"datasets": [{"path": str(folder / "shards")}], "batch_size": 32},
        "model": {"kwargs": _NETWORK},
        "objectives": {"simclr": {"hidden": 16, "out": 8}},
        "schedule": {"epochs": 10**6, "max_steps": 10**6},
        "checkpoint": {"every_steps": EVERY, "keep": 3},
        "log_every_steps": 1,
        "health": {"min_embedding_std": 0.0},
        "cluster": {
            "workers": 2, "threads_per_worker": 1, "max_failures": KILLS, "tracking_uri": f"sqlite:///{folder}/mlflow.db"
        },
    }  # fmt: skip
    path = folder / "ours.yaml"
    path.write_text(yaml.safe_dump(document))
    lines = folder / "ours" / "metrics.jsonl"
    return [sys.executable, "-m", "medformer", "pretrain", str(path)], lambda: _count(lines)


def _plain(folder: Path) -> tuple[list[str], Callable[[], int]]:
    path, steps = folder / "plain.json", folder / "plain-steps"
    path.write_text(json.dumps({"storage": str(folder / "plain"), "steps": str(steps), "network": _NETWORK}))
    return [sys.executable, "-m", "benchmarks.peers.ray_loop", str(path)], lambda: _last(steps)


def _count(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _last(path: Path) -> int:
    return int(path.read_text().split()[-1]) if path.exists() and path.stat().st_size else 0
