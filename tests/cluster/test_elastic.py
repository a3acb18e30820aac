"""A run whose machines come and go, on real Ray nodes: it grows without losing a step, and goes on when some are lost.

And a worker that hangs.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.restarts import reasons
from data_shards.sources.phantoms import Phantoms
from data_shards.writing.writer import write_dataset
from pretrain.checkpoint import CheckpointStore
from tests.cluster.ray_head import RayHead
from tests.pretrain.runs import Run, assert_equal_bits, document, write_document

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(1500)]

LIMIT_S = 600
STEPS, EVERY = 60, 10


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards") / "knee"
    write_dataset(Phantoms("phantom-knee-mri-2d", subjects=77, images_per_subject=2), folder)
    return folder


def new_run(folder: Path, shards: Path, **cluster: Any) -> Run:
    """Steps that take long enough to be disturbed, at a learning rate at which one and two workers agree."""
    folder.mkdir(exist_ok=True)
    content = document(
        shards,
        folder / "out",
        schedule={"epochs": 4000, "max_steps": STEPS},
        data={"datasets": [{"path": str(shards)}], "batch_size": 29},
        optimizer={"lr": 1e-4, "kwargs": {"eps": 1e-4}},
        checkpoint={"every_steps": EVERY, "keep": STEPS},
        cluster={"threads_per_worker": 1, "tracking_uri": f"sqlite:///{folder / 'mlflow.db'}", **cluster},
    )
    return Run(write_document(folder / "run.yaml", content), folder / "out")


class Command:
    """``medformer pretrain`` in a process of its own."""

    def __init__(self, run: Run, *words: str) -> None:
        self.run = run
        self.log = run.config.with_name("log.txt")
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "medformer", "pretrain", str(run.config), *words],
                stdout=log, stderr=log, start_new_session=True, env={**os.environ, "RAY_AUTH_MODE": "disabled"},
                cwd=Path(__file__).parents[2],
            )  # fmt: skip

    def until(self, happened: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + LIMIT_S
        while not (found := happened()):
            assert self.process.poll() is None, f"ended too early:\n{self.log.read_text()}"
            assert time.monotonic() < deadline, f"nothing happened:\n{self.log.read_text()}"
            time.sleep(0.05)
        return found

    def workers(self) -> list[dict[str, Any]]:
        path = self.run.out / "workers.json"
        return json.loads(path.read_text())["workers"] if path.exists() else []

    def expect(self, status: int) -> str:
        assert self.process.wait(LIMIT_S) == status, self.log.read_text()
        return self.log.read_text()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RayHead]:
    """One machine with a CPU."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    cluster = RayHead(tmp_path / "ray").start()
    yield cluster
    cluster.stop()


def test_a_run_grows_by_a_checkpoint_and_shrinks_without_waiting(head: RayHead, shards: Path, tmp_path: Path) -> None:
    run = new_run(tmp_path / "elastic", shards, address=f"127.0.0.1:{head.port}", grow_every_s=2, hang_after_s=600)
    command = Command(run, "--workers", "1:2")
    try:
        command.until(lambda: run.steps_logged() > EVERY)  # with one machine it begins, and does not wait
        (alone,) = command.until(command.workers)
        os.kill(alone["pid"], signal.SIGSTOP)  # the run is not to end before the machine is there
        node = head.add_node()
        command.until((run.out / "grow").exists)
        os.kill(alone["pid"], signal.SIGCONT)
        command.until(lambda: reasons(run.out))
        grown_at = run.steps_logged()
        newest = CheckpointStore(run.out / "checkpoints").latest()
        assert newest is not None and newest.step == grown_at, "a checkpoint of the last step: no step is lost"
        assert newest.state()["world_size"] == 1
        command.until(lambda: run.steps_logged() > grown_at + EVERY)
        os.killpg(node.pid, signal.SIGKILL)
        said = command.expect(0)
    finally:
        command.end()
    (first, grown), (second, lost) = reasons(run.out)
    assert (first, grown) == (0, "there is room for 2 workers, 1 trained")
    assert second == 1 and ("lost the connection to another worker" in lost or "was lost" in lost), lost
    assert f"{grown}; started again (attempt 1)" in said and f"{lost}; started again (attempt 2)" in said
    store = CheckpointStore(run.out / "checkpoints")
    sizes = {checkpoint.attempt: checkpoint.state()["world_size"] for checkpoint in store.complete()}
    assert sizes == {0: 1, 1: 2, 2: 1}
    alone_run = new_run(tmp_path / "alone", shards)
    alone_run.start().expect(0)
    assert [line["step"] for line in run.metrics()] == list(range(1, STEPS + 1))
    for mine, theirs in zip(run.metrics(), alone_run.metrics(), strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-4), mine["step"]


def test_a_worker_that_is_stopped_is_named_and_replaced_within_the_bound(shards: Path, tmp_path: Path) -> None:
    bound_s = 8
    whole = new_run(tmp_path / "whole", shards)
    whole.start(workers=2).expect(0)
    run = new_run(tmp_path / "hung", shards, workers=2, hang_after_s=bound_s)
    command = Command(run)
    try:
        hung = command.until(lambda: [each for each in command.workers() if each["rank"] == 1 and each["step"] > EVERY])
        os.kill(hung[0]["pid"], signal.SIGSTOP)
        stopped_s = time.monotonic()
        command.until(lambda: reasons(run.out))
        noticed_s = time.monotonic() - stopped_s
        said = command.expect(0)
    finally:
        command.end()
    assert bound_s - 1 < noticed_s < bound_s + 10, noticed_s
    ((attempt, reason),) = reasons(run.out)
    assert attempt == 0 and f"rank 1 (process {hung[0]['pid']} on " in reason
    assert reason.endswith(f"answered nothing for {bound_s} s") and "in step " in reason
    assert f"{reason}; started again (attempt 1)" in said
    assert not Path(f"/proc/{hung[0]['pid']}").exists(), "the stopped process is gone"
    assert_equal_bits(run, whole)
