"""What is told of workers that hang, are stuck or were lost, and of what their GPUs do."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest
import torch

from cluster import beats
from cluster.progress import _workers
from cluster.ray_runtime import WORKERS_FILE
from cluster.restarts import RESTARTS_FILE, note, reasons
from cluster.status_lines import Status
from medformer.commands.jobs import _told
from tests.cluster.test_ray_train import run_driver


def test_a_worker_says_from_another_thread_how_far_its_training_is_and_where() -> None:
    asked, known = threading.Event(), threading.Event()

    def train() -> None:
        own = beats.Beats(torch.device("cpu"))
        found.append(own)
        own.at_step(40)
        own.next_step()
        known.set()
        asked.wait(60)

    found: list[beats.Beats] = []
    thread = threading.Thread(target=train)
    thread.start()
    known.wait(60)
    time.sleep(0.3)
    beat = found[0].beat()
    asked.set()
    thread.join()
    assert (beat.begun, beat.step, beat.waits, beat.gpu) == (1, 41, False, None)
    assert 0.3 <= beat.idle_s < 10 and beat.where == "Condition.wait"
    assert found[0].beat().where == "nowhere", "its thread has ended"


def test_a_place_is_the_innermost_line_of_ours() -> None:
    frames = []

    class Watched(beats.Beats):
        def moved(self) -> None:
            frames.append(beats.sys._getframe())

    Watched(torch.device("cpu"))
    text = beats.place(frames[0])
    line = next(
        number
        for number, code in enumerate(Path(beats.__file__).read_text().splitlines(), 1)
        if code.strip() == "self.moved()"
    )
    assert text == f"cluster/beats.py:{line} Beats.__init__, in {Watched.moved.__qualname__}"


def test_the_first_reason_of_each_start_of_the_workers_is_kept_and_torn_lines_are_passed_over(tmp_path: Path) -> None:
    for attempt in (0, 0, 1):
        note(tmp_path, attempt, f"reason {len(reasons(tmp_path))}")
    with open(tmp_path / RESTARTS_FILE, "a") as file:
        file.write('{"attempt": 7, "rea')
    assert reasons(tmp_path) == [(0, "reason 0"), (1, "reason 1")]


def test_gpus_are_told_where_there_are_any(tmp_path: Path) -> None:
    assert _workers(tmp_path) == {}
    alone = {"rank": 0, "gpu": None}
    (tmp_path / WORKERS_FILE).write_text(json.dumps({"workers": [alone, alone]}))
    assert _told(Status(3, **_workers(tmp_path))) == "step 3, 2 workers, no checkpoint yet"
    gpus = [{"busy": 0.5, "memory": 0.25}, {"busy": 1.0, "memory": 0.75}]
    (tmp_path / WORKERS_FILE).write_text(json.dumps({"workers": [{"gpu": gpu} for gpu in gpus]}))
    assert _told(Status(3, **_workers(tmp_path))) == "step 3, 2 workers, GPU 75% busy, 75% of memory, no checkpoint yet"
    (tmp_path / WORKERS_FILE).write_text(json.dumps({"workers": [{"gpu": {"busy": None, "memory": 0.5}}]}))
    assert "GPU 50% of memory" in _told(Status(3, **_workers(tmp_path)))


@pytest.mark.cluster
@pytest.mark.slow
def test_training_that_stands_still_in_a_worker_that_answers_is_named_with_its_place(tmp_path: Path) -> None:
    stdout, out, _ = run_driver(
        tmp_path,
        """
        def body(runtime):
            import torch
            import torch.distributed as dist
            for _ in range(3):
                runtime.stop_requested()
                dist.all_reduce(torch.zeros(1))
            if runtime.attempt == 0 and runtime.rank == 1:
                stuck_in_a_file_that_never_comes()
            runtime.stop_requested()
            dist.all_reduce(torch.zeros(1))
            return runtime.attempt

        def stuck_in_a_file_that_never_comes():
            time.sleep(10_000)
        """,
        group="stuck_after_s=5",
    )
    assert stdout.strip() == "ANSWER 1"
    ((attempt, reason),) = reasons(out)
    assert attempt == 0 and reason.startswith("the training has stood still for 5 s: rank 1 (process ")
    behind, _, waits = reason.partition("; ")
    assert "stuck_in_a_file_that_never_comes" in behind
    assert waits.startswith("rank 0 (process ") and "all_reduce" in waits
