"""A run that loses a machine and gets another one, against the same run undisturbed, on real Ray nodes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file

from benchmarks.table import Table
from cluster.restarts import reasons
from data_shards.sources.phantoms import Phantoms
from data_shards.writing.writer import write_dataset
from pretrain.checkpoint import CheckpointStore
from pretrain.meter import read_metrics

STAGES = (0, 1, 2, 3)
STEPS, EVERY = 60, 10
_PHASE = 12
_LIMIT_S = 900


@dataclass(frozen=True)
class Change:
    """What became of a disturbed run.

    Attributes:
        phases: number of workers and the step up to which they trained.
        again: steps that were done twice, after the loss.
        lost_s: from the loss of the machine to the next new step.
        joined_s: from the start of the checkpoint for more workers to the next new step.
    """

    phases: list[tuple[int, int]]
    again: int
    lost_s: float
    joined_s: float


def run() -> Table:
    """A row for each ZeRO stage."""
    os.environ.update(RAY_AUTH_MODE="disabled", RAY_USAGE_STATS_ENABLED="0")
    from ray.cluster_utils import Cluster

    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_dataset(Phantoms("phantom-knee-mri-2d", subjects=77, images_per_subject=2), folder / "shards")
        for stage in STAGES:
            cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0})
            try:
                node = cluster.add_node(num_cpus=1)
                whole, _ = _run(folder, f"whole-{stage}", cluster, stage, None)
                changed, change = _run(folder, f"changed-{stage}", cluster, stage, node)
            finally:
                cluster.shutdown()
            assert change is not None
            rows.append(_row(stage, whole, changed, change))
    return Table(
        title="Two workers, one, two again in one run",
        command="python -m benchmarks elastic",
        columns=(
            "ZeRO stage", "workers", "loss, largest relative difference", "final weights, relative difference",
            "steps done twice", "new step after the loss, s", "new step after the growth, s",
        ),
        rows=tuple(rows),
        remarks=f"{STEPS} steps of Barlow Twins, BYOL and SimCLR on a tiny network, global batches of 29 images, "
        f"learning rate 1e-4 and an Adam epsilon of 1e-4, a checkpoint every {EVERY} steps; the differences are to the "
        "same run on two workers throughout. A Ray head and a second raylet, one CPU each, on 127.0.0.1: the raylet is "
        "killed with its worker and another one is started later. Steps done twice are those since the newest "
        "checkpoint when the machine was lost; growing costs none, for a checkpoint comes first. While "
        "the new raylet starts, the worker is stopped (SIGSTOP). The seconds include the start of the processes, on a "
        "machine with other work.",
    )  # fmt: skip


def _document(folder: Path, name: str, address: str, stage: int) -> dict[str, Any]:
    small = {"hidden": 16, "out": 8}
    return {
        "out": str(folder / name),
        "seed": 3,
        "data": {"datasets": [{"path": str(folder / "shards")}], "batch_size": 29},
        "model": {"kwargs": {"embed_dim": 32, "depth": 1, "num_heads": 2, "latents": 2, "latents_per_entry": 1}},
        "objectives": {"barlow_twins": {**small, "out": 16, "weight": 0.1}, "byol": small, "simclr": small},
        "optimizer": {"lr": 1e-4, "kwargs": {"eps": 1e-4}},
        "schedule": {"epochs": 10**4, "max_steps": STEPS},
        "deepspeed": {"zero_optimization": {"stage": stage}},
        "checkpoint": {"every_steps": EVERY, "keep": STEPS},
        "log_every_steps": 1,
        "health": {"min_embedding_std": 0.0},
        "cluster": {
            "address": address,
            "workers": "1:2",
            "threads_per_worker": 1,
            "grow_every_s": 2,
            "hang_after_s": _LIMIT_S,
            "tracking_uri": f"sqlite:///{folder / 'mlflow.db'}",
        },
    }


def _run(folder: Path, name: str, cluster: Any, stage: int, node: Any) -> tuple[Path, Change | None]:
    """Train; with a node, lose it and get another one."""
    out = folder / name
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(_document(folder, name, cluster.address, stage)))
    with open(folder / f"{name}.log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "medformer", "pretrain", str(path)], stdout=log, stderr=log, start_new_session=True
        )
    try:
        change = None if node is None else _disturb(out, cluster, node, process)
        if process.wait(_LIMIT_S):
            raise AssertionError((folder / f"{name}.log").read_text())
    finally:
        process.kill()
        process.wait()
    if change is not None:
        change.phases.extend(_phases(out))
    return out, change


def _disturb(out: Path, cluster: Any, node: Any, process: subprocess.Popen[bytes]) -> Change:
    def until(happened: Callable[[], bool]) -> float:
        deadline = time.monotonic() + _LIMIT_S
        while not happened():
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"{out}: the run ended, or nothing happened, at step {_steps(out)}")
            time.sleep(0.02)
        return time.monotonic()

    until(lambda: _steps(out) > _PHASE)
    cluster.remove_node(node, allow_graceful=False)
    lost_s = time.monotonic()
    until(lambda: len(reasons(out)) == 1)
    lost_at = _steps(out)
    resumed_s = until(lambda: _workers(out)["attempt"] == 1 and _steps(out) > lost_at)
    newest = max(c.step for c in CheckpointStore(out / "checkpoints").complete() if c.attempt == 0)
    until(lambda: _steps(out) > lost_at + _PHASE)
    pid = _workers(out)["workers"][0]["pid"]
    os.kill(pid, signal.SIGSTOP)  # the run is not to end before the machine is there
    cluster.add_node(num_cpus=1)
    asked_s = until((out / "grow").exists)
    os.kill(pid, signal.SIGCONT)
    until(lambda: len(reasons(out)) == 2)
    grown_at = _steps(out)
    grown_s = until(lambda: _steps(out) > grown_at)
    return Change([], lost_at - newest, resumed_s - lost_s, grown_s - asked_s)


def _steps(out: Path) -> int:
    path = out / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _workers(out: Path) -> dict[str, Any]:
    path = out / "workers.json"
    return json.loads(path.read_text()) if path.exists() else {"attempt": 0, "workers": []}


def _phases(out: Path) -> list[tuple[int, int]]:
    found: dict[int, tuple[int, int]] = {}
    for checkpoint in CheckpointStore(out / "checkpoints").complete():
        found[checkpoint.attempt] = (checkpoint.state()["world_size"], checkpoint.step)
    return [found[attempt] for attempt in sorted(found)]


def _row(stage: int, whole: Path, changed: Path, change: Change) -> tuple[str, ...]:
    lines = [read_metrics(out / "metrics.jsonl") for out in (changed, whole)]
    if [line["step"] for line in lines[0]] != list(range(1, STEPS + 1)):
        raise AssertionError(f"{changed}: steps are missing or stand twice")
    loss = max(abs(a["loss"] - b["loss"]) / abs(b["loss"]) for a, b in zip(*lines, strict=True))
    found, expected = (load_file(out / "bundle" / "model.safetensors") for out in (changed, whole))
    difference = torch.stack([(found[key].double() - expected[key].double()).square().sum() for key in expected]).sum()
    size = torch.stack([each.double().square().sum() for each in expected.values()]).sum()
    return (
        str(stage),
        ", ".join(f"{workers} to step {step}" for workers, step in change.phases),
        f"{loss:.1e}",
        f"{float((difference / size).sqrt()):.1e}",
        str(change.again),
        f"{change.lost_s:.0f}",
        f"{change.joined_s:.0f}",
    )
