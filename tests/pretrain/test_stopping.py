"""A stop is obeyed by all ranks after the same step, at once, however seldom a run is logged."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pretrain.checkpoint import CheckpointStore
from pretrain.meter import read_metrics
from pretrain.runtime import _free_port
from tests.pretrain.engine_ranks import SIGNAL_STEP, stopped_by_signal
from tests.pretrain.ranks import run_ranks
from tests.pretrain.runs import document, write_document

ROOT = Path(__file__).parents[2]
NEVER = 10**6


def test_sigterm_to_one_rank_stops_both_after_the_step_it_comes_in_or_the_next(shards: Path, tmp_path: Path) -> None:
    ranks = run_ranks(stopped_by_signal, 2, shards, tmp_path)
    assert ranks[0] == ranks[1]
    before, after = ranks[0]
    assert before == (SIGNAL_STEP, [SIGNAL_STEP])
    assert after == (SIGNAL_STEP + 1, [SIGNAL_STEP + 1])
    for name, step in (("before-True", SIGNAL_STEP), ("before-False", SIGNAL_STEP + 1)):
        assert [line["step"] for line in read_metrics(tmp_path / name / "metrics.jsonl")] == [step]
        newest = CheckpointStore(tmp_path / name / "checkpoints").latest()
        assert newest is not None and newest.step == step
        newest.verify()


@pytest.mark.slow
def test_sigterm_to_one_of_two_processes_is_obeyed_within_five_seconds(shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    content: dict[str, Any] = document(
        shards, out, schedule={"epochs": NEVER}, log_every_steps=NEVER, checkpoint={"every_steps": NEVER}
    )
    config = write_document(tmp_path / "config.yaml", content)
    port = str(_free_port())
    processes, logs = [], []
    for rank in range(2):
        place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
        logs.append(tmp_path / f"log-{rank}.txt")
        with open(logs[-1], "wb") as file:
            command = [sys.executable, "-m", "pretrain", str(config)]
            environment = {**os.environ, **place, **address}
            processes.append(subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=file))
    try:
        limit = time.monotonic() + 200
        while not (out / "config.yaml").exists():  # Written right before the first step.
            assert time.monotonic() < limit and not any(p.poll() for p in processes), logs[0].read_text()
            time.sleep(0.05)
        time.sleep(1)
        asked = time.time()
        processes[1].send_signal(signal.SIGTERM)
        assert [process.wait(100) for process in processes] == [3, 3], [log.read_text() for log in logs]
    finally:
        for process in processes:
            process.kill()
    (checkpoint,) = CheckpointStore(out / "checkpoints").complete()
    begun = (checkpoint.folder / "state.json").stat().st_mtime  # The first file of a checkpoint.
    assert begun - asked < 5
    assert "go on with --resume" in logs[0].read_text()
