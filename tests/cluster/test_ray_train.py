"""Real workers on a real local Ray: they find each other, are replaced when lost, and leave no process behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
import uuid
from pathlib import Path

import pytest

from cluster.errors import ClusterError
from cluster.restarts import reasons

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).resolve().parents[2]

# Defined in the main program of a process of its own, so that signals and leftovers can be looked at from outside.
# The working directory is not the source tree and PYTHONPATH is not set: the workers must find our packages anyway.
HEAD = """
import json, os, sys, time
sys.path.insert(0, {root!r})
from pathlib import Path
from cluster.ray_train import run_on_workers
from cluster.worker_group import WorkerGroup
from data_shards.support.errors import MedformerError, TrainingError

def main():
    try:
        group = WorkerGroup(workers=2, threads_per_worker=1, gpus_per_worker=0, max_failures=2, {group})
        answer = run_on_workers(body, group, Path({out!r}))
        print("ANSWER " + json.dumps(answer))
    except MedformerError as error:
        print("ERROR " + type(error).__name__ + ": " + str(error))
"""


def run_driver(tmp_path: Path, body: str, timeout_s: float = 240, group: str = "") -> tuple[str, Path, float]:
    """Run ``body`` on two workers; returns what the driver printed, the run's folder and the seconds it took."""
    out = tmp_path / "out"
    out.mkdir()
    mark = uuid.uuid4().hex
    script = tmp_path / "driver.py"
    main = "\nif __name__ == '__main__':\n    main()\n"
    script.write_text(HEAD.format(root=str(ROOT), out=str(out), group=group) + textwrap.dedent(body) + main)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    began = time.monotonic()
    finished = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env={**environment, "MEDFORMER_TEST_MARK": mark, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
    assert finished.returncode == 0, finished.stderr
    assert "Traceback" not in finished.stdout + finished.stderr
    assert processes_with(mark) == []
    return finished.stdout, out, time.monotonic() - began


def processes_with(mark: str) -> list[str]:
    """Command lines of the processes whose environment has the mark."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                if mark.encode() in (folder / "environ").read_bytes() and (folder / "cmdline").read_bytes():
                    found.append((folder / "cmdline").read_text())
            except OSError:
                continue
    return found


@pytest.mark.slow
def test_a_lost_worker_is_replaced_and_the_attempt_is_counted(tmp_path: Path) -> None:
    stdout, out, _ = run_driver(
        tmp_path,
        """
        def body(runtime):
            import deepspeed, torch
            import torch.distributed as dist
            from deepspeed.accelerator import get_accelerator
            world = dist.group.WORLD
            deepspeed.init_distributed(dist_backend="gloo")
            total = torch.tensor([runtime.rank + 1.0])
            dist.all_reduce(total)
            if runtime.attempt == 0 and runtime.rank == 1:
                os._exit(1)
            runtime.report({"loss": 1.0}, 1)
            runtime.checkpoint_saved(Path("checkpoint"), 1)
            if runtime.attempt == 0:
                dist.all_reduce(total)
            return {
                "total": total.item(),
                "attempt": runtime.attempt,
                "world_size": runtime.world_size,
                "device": str(runtime.device),
                "accelerator": get_accelerator().device_name(),
                "group_reused": dist.group.WORLD is world,
                "threads": torch.get_num_threads(),
                "cwd": os.getcwd(),
                "torchrun": sorted(
                    {"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} & set(os.environ)
                ),
            }
        """,
    )
    answer = json.loads(stdout.split("ANSWER ")[1])
    assert answer == {
        "total": 3.0,
        "attempt": 1,
        "world_size": 2,
        "device": "cpu",
        "accelerator": "cpu",
        "group_reused": True,
        "threads": 1,
        "cwd": str(tmp_path),
        "torchrun": ["LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE"],
    }
    assert (out / "attempt").read_text() == "1\n"


@pytest.mark.slow
def test_a_lost_controller_is_replaced_like_a_lost_worker(tmp_path: Path) -> None:
    stdout, out, _ = run_driver(
        tmp_path,
        """
        def body(runtime):
            import psutil
            mark = os.environ["MEDFORMER_TEST_MARK"]
            if runtime.attempt == 0:
                for process in psutil.process_iter(["cmdline"]):
                    if (process.info["cmdline"] or [""])[0].startswith("ray::TrainController"):
                        if process.environ().get("MEDFORMER_TEST_MARK") == mark:
                            process.kill()
                time.sleep(600)
            return runtime.attempt
        """,
    )
    assert stdout.split("ANSWER ")[1].strip() == "1"
    assert reasons(out) == [(0, "the process of Ray Train that leads the workers was lost")]


@pytest.mark.slow
def test_an_error_of_ours_ends_the_run_at_once_in_one_line(tmp_path: Path) -> None:
    stdout, out, _ = run_driver(
        tmp_path,
        """
        def body(runtime):
            import torch
            import torch.distributed as dist
            if runtime.rank == 1:
                raise TrainingError("the loss is nan at step 7")
            dist.all_reduce(torch.zeros(1))  # Rank 1 never comes.
        """,
    )
    assert stdout.strip() == "ERROR TrainingError: the loss is nan at step 7"
    assert (out / "attempt").read_text() == "0\n", "an error of ours was tried again"
    assert not (out / "failure.txt").exists()


@pytest.mark.slow
def test_a_bug_is_tried_again_and_then_told_with_its_traceback_in_a_file(tmp_path: Path) -> None:
    stdout, out, _ = run_driver(
        tmp_path,
        """
        def body(runtime):
            raise ZeroDivisionError("a bug of the body")
        """,
    )
    assert stdout.startswith("ERROR ClusterError: the run failed for good after 2 restarts; rank 0: ZeroDivisionError")
    assert len(stdout.strip().splitlines()) == 1
    assert (out / "attempt").read_text() == "2\n"
    failure = (out / "failure.txt").read_text()
    assert "Traceback" in failure and "a bug of the body" in failure


@pytest.mark.slow
def test_a_stop_file_is_seen_by_one_rank_at_once_and_looking_for_it_costs_nothing(tmp_path: Path) -> None:
    stdout, _, _ = run_driver(
        tmp_path,
        """
        def body(runtime):
            import torch
            import torch.distributed as dist
            calls, began, busy = 0, time.monotonic(), 0.0
            while True:
                called = time.monotonic()
                stop = runtime.stop_requested()
                busy += time.monotonic() - called
                calls += 1
                answers = torch.tensor([float(stop)])
                dist.all_reduce(answers)  # As the engine lets the ranks vote.
                if answers.item():
                    waited = time.time() - Path("out/stop").stat().st_mtime
                    return {"calls": calls, "busy": busy / (time.monotonic() - began), "waited": waited}
                if runtime.rank == 1 and calls == 200:
                    Path("out/stop").touch()
                time.sleep(0.01)
        """,
    )

    answer = json.loads(stdout.split("ANSWER ")[1])
    assert answer["calls"] > 200
    assert answer["busy"] < 0.05
    assert answer["waited"] < 5


def test_more_gpus_than_the_machine_has_are_refused_before_anything_starts(tmp_path: Path) -> None:
    from cluster.ray_train import run_on_workers
    from cluster.worker_group import WorkerGroup

    with pytest.raises(ClusterError, match="9 GPUs asked for, this machine has"):
        run_on_workers(print, WorkerGroup(workers=9, gpus_per_worker=1), tmp_path)


def test_a_ray_of_our_own_takes_the_gpus_that_torch_can_use() -> None:
    from cluster.ray_train import on_this_machine
    from cluster.worker_group import WorkerGroup

    chosen = [on_this_machine(WorkerGroup(workers=2), gpus=gpus, cpus=2).gpus_per_worker for gpus in range(4)]
    assert chosen == [0, 0, 1, 1]
    assert on_this_machine(WorkerGroup(workers=2, gpus_per_worker=0), gpus=8, cpus=2).gpus_per_worker == 0


def test_workers_are_held_against_the_cpus_of_this_machine_only_where_no_cluster_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from cluster.ray_train import settled
    from cluster.worker_group import WorkerGroup

    with pytest.raises(ClusterError, match="4096 workers need as many CPUs, this machine has"):
        settled(WorkerGroup(workers=4096))
    assert settled(WorkerGroup(workers=4096, address="head:6379")).address == "head:6379"
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")  # as a Ray job and the script for Slurm set it
    assert settled(WorkerGroup(workers=4096)).address == "head:6379"


def test_a_cluster_that_is_not_there_is_named(tmp_path: Path) -> None:
    from cluster.ray_train import run_on_workers
    from cluster.worker_group import WorkerGroup

    began = time.monotonic()
    with pytest.raises(ClusterError, match=r"Ray cluster 127\.0\.0\.1:9 does not answer"):
        run_on_workers(print, WorkerGroup(address="127.0.0.1:9"), tmp_path)
    assert time.monotonic() - began < 60


@pytest.mark.slow
def test_workers_end_when_others_were_started_in_their_folder(tmp_path: Path) -> None:
    """A driver that was taken for lost and lives must not write beside the one that took its place."""
    said, _, _ = run_driver(
        tmp_path,
        """
        def body(runtime):
            from cluster.ray_runtime import ATTEMPT_FILE
            if runtime.rank == 0:
                (Path({out!r}) / ATTEMPT_FILE).write_text("7\\n")
            for _ in range(300):
                if runtime.stop_requested():
                    return "stopped"
                time.sleep(0.1)
            return "never told"
        """.replace("{out!r}", repr(str(tmp_path / "out"))),
    )
    assert "ERROR ClusterError" in said and "workers were started again (attempt 7); these ones end" in said
