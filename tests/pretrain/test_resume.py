"""A run that is killed, or stopped, ends with the weights of one that was not, bit for bit."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from pretrain.checkpoint import CheckpointStore
from tests.pretrain.runs import EVERY, STEPS, Run, Started, assert_equal_bits, document, write_document

SHORT: dict[str, Any] = {"schedule": {"epochs": 10, "max_steps": 16}, "checkpoint": {"every_steps": 4}}


def new_run(shards: Path, folder: Path, **changes: Any) -> Run:
    return Run(write_document(folder / "config.yaml", document(shards, folder / "out", **changes)), folder / "out")


def kill(started: Started) -> None:
    """End the process, and those it has started, as the kernel or a power cut would."""
    os.killpg(started.process.pid, signal.SIGKILL)
    started.process.wait()


def assert_unbroken_record(run: Run, steps: int = STEPS) -> None:
    assert [line["step"] for line in run.metrics()] == list(range(1, steps + 1))
    assert not list(run.out.rglob(".*")), "nothing half-written is left"


@pytest.mark.slow
def test_killed_before_and_after_a_checkpoint(unbroken: Run, shards: Path, tmp_path: Path) -> None:
    run = new_run(shards, tmp_path)
    pause = random.Random()

    started = run.start()
    started.wait_until(lambda: run.steps_logged() >= 2)
    time.sleep(pause.uniform(0, 0.05))
    kill(started)

    started = run.start("--resume")
    started.wait_until(lambda: run.steps_logged() >= EVERY + 2)
    time.sleep(pause.uniform(0, 1.0))
    kill(started)

    run.start("--resume").expect(0)
    assert_unbroken_record(run)
    assert_equal_bits(run, unbroken)


@pytest.mark.slow
def test_sigterm_writes_a_checkpoint_and_the_run_goes_on(shards: Path, tmp_path: Path) -> None:
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    whole, run = (new_run(shards, tmp_path / name, **SHORT) for name in ("whole", "stopped"))
    whole.start().expect(0)
    started = run.start()
    every, steps = SHORT["checkpoint"]["every_steps"], SHORT["schedule"]["max_steps"]
    started.wait_until(lambda: run.steps_logged() >= every + 1)
    started.process.send_signal(signal.SIGTERM)
    assert "go on with --resume" in started.expect(3)
    last = run.steps_logged()
    newest = CheckpointStore(run.out / "checkpoints").latest()
    assert newest is not None and newest.step == last and every < last < steps
    assert not (run.out / "bundle").exists()

    run.start("--resume").expect(0)
    assert_unbroken_record(run, steps)
    assert_equal_bits(run, whole)


@pytest.mark.slow
def test_two_workers_of_which_one_is_killed_go_on_to_the_same_bits(shards: Path, tmp_path: Path) -> None:
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    whole, run = new_run(shards, tmp_path / "whole"), new_run(shards, tmp_path / "killed")
    whole.start(workers=2).expect(0)
    started = run.start(workers=2)
    started.wait_until(lambda: run.steps_logged() >= EVERY + 4)
    pid = started.process.pid
    workers = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert len(workers) == 2
    os.kill(int(workers[1]), signal.SIGKILL)
    started.expect(1)
    run.start("--resume", workers=2).expect(0)
    assert_unbroken_record(run)
    assert_equal_bits(run, whole)
