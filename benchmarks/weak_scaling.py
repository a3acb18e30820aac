"""Whether a second worker with a core of its own doubles the images per second of a pretraining."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import yaml

from benchmarks.table import Table
from data_shards.sources.phantoms import Phantoms
from data_shards.writing.writer import write_dataset

ROUNDS = 5
IMAGES = 64
STEPS, EVERY, WARM_UP = 60, 10, 2
"""Steps of a run, steps between two lines of its log, and lines that do not count."""
MODEL = "medformer_nano"
_PAIR = "one run of two workers"


def run() -> Table:
    """A row for each way to use the cores."""
    rates: dict[str, list[float]] = {"one worker, the other core idle": [], "two runs of one worker": [], _PAIR: []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_dataset(Phantoms("phantom-knee-mri-2d", subjects=120, images_per_subject=2), folder / "shards")
        for number in range(ROUNDS):
            for way, (runs, workers) in zip(rates, ((1, 1), (2, 1), (1, 2)), strict=True):
                rates[way].append(_rate(folder, f"{number}-{runs}-{workers}", runs, workers))
    alone, apart, _ = rates.values()
    return Table(
        title="One worker and two",
        command="python -m benchmarks weak_scaling",
        columns=("", "images/s and worker, median", "least to most", "of one worker", "of two runs"),
        rows=tuple(
            (way, f"{statistics.median(found):.1f}", f"{min(found):.1f} to {max(found):.1f}", _of(found, alone),
             _of(found, apart))
            for way, found in rates.items()
        ),
        remarks=f"`python -m pretrain` under torchrun, {MODEL}, SimCLR, {IMAGES} images of 28 x 28 for each worker, "
        f"ZeRO 0, gloo, a core and a thread for each; {ROUNDS} rounds in turn, each the median of its log lines. Two "
        "runs beside each other share nothing but the machine: what they lose against one is its memory and cache. "
        "Ratios are medians of those of the rounds.",
    )  # fmt: skip


def _rate(folder: Path, name: str, runs: int, workers: int) -> float:
    """Images per second and worker of ``runs`` runs beside each other."""
    started = [_start(folder, f"{name}-{number}", number, workers) for number in range(runs)]
    for process, log in started:
        if process.wait():
            raise RuntimeError(log.read_text())
    lines = [
        json.loads(line)
        for number in range(runs)
        for line in (folder / f"{name}-{number}" / "metrics.jsonl").read_text().splitlines()
    ]
    counted = [line for line in lines if "images_per_s" in line and line["step"] > WARM_UP * EVERY]
    return statistics.median(line["images_per_s"] for line in counted) / workers


def _start(folder: Path, name: str, core: int, workers: int) -> tuple[subprocess.Popen[bytes], Path]:
    document = {
        "out": str(folder / name),
        "schedule": {"epochs": 10**6, "max_steps": STEPS},
        "log_every_steps": EVERY,
        "data": {"datasets": [{"path": str(folder / "shards")}], "batch_size": IMAGES * workers},
        "model": {"name": MODEL},
        "objectives": {"simclr": {}},
    }
    path, log = folder / f"{name}.yaml", folder / f"{name}.log"
    path.write_text(yaml.safe_dump(document))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={workers}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    pinned = ["taskset", "-c", str(core)] if workers == 1 else []
    with open(log, "wb") as file:
        process = subprocess.Popen(
            [*pinned, *command, "-m", "pretrain", str(path)], stdout=file, stderr=file, env=environment
        )
    return process, log


def _of(found: Sequence[float], other: Sequence[float]) -> str:
    return f"{statistics.median(one / two for one, two in zip(found, other, strict=True)):.3f}"
