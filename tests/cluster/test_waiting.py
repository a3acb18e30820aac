"""A cluster that is too small: what is told, when, and how soon Ctrl-C and SIGTERM end the waiting. Real Ray nodes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.test_ray_train import processes_with

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 5.0
SCRIPT = """
import json, os, sys, time
sys.path.insert(0, {root!r})
from pathlib import Path
from cluster.interruptions import StopAsked
from cluster.ray_train import run_on_workers
from cluster.worker_group import WorkerGroup
from data_shards.support.errors import MedformerError

def body(runtime):
    import ray
    from deepspeed.accelerator import get_accelerator
    return dict(device=str(runtime.device), accelerator=get_accelerator().device_name(), world_size=runtime.world_size,
        threads=os.environ["OMP_NUM_THREADS"], resources=ray.get_runtime_context().get_assigned_resources())

def main():
    out = Path("out")
    out.mkdir(exist_ok=True)
    began = time.monotonic()
    try:
        print("ANSWER " + json.dumps(run_on_workers(body, WorkerGroup(**json.loads(sys.argv[1])), out.absolute())))
    except MedformerError as error:
        print(f"ERROR {{error}}")
    except StopAsked:
        print("STOPPED", time.monotonic())
    except KeyboardInterrupt:
        print("INTERRUPTED", time.monotonic())

{before}
if __name__ == '__main__':
    main()
"""


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[Any]:
    """A head node with one CPU and no GPU, in processes of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0})
        yield cluster
        cluster.shutdown()


class Run:
    """A process that runs workers on the cluster."""

    def __init__(self, cluster: Any, folder: Path, *, before: str = "", **group: Any) -> None:
        self.mark = f"{folder.name}-{os.urandom(8).hex()}"
        (folder / "driver.py").write_text(SCRIPT.format(root=str(ROOT), before=textwrap.dedent(before)))
        self.process = subprocess.Popen(
            [sys.executable, "driver.py", json.dumps({"address": cluster.address, **group})],
            cwd=folder,
            env={**os.environ, "MEDFORMER_TEST_MARK": self.mark, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.told = ""

    def until_told(self, words: str) -> None:
        """Read standard error until it says ``words``."""
        assert self.process.stderr is not None
        while words not in self.told:
            line = self.process.stderr.readline()
            assert line, self.told
            self.told += line

    def ends_after(self, *numbers: signal.Signals) -> tuple[str, float]:
        """Send signals; what came of it, and after how many seconds (the clock is that of the machine)."""
        sent_s = time.monotonic()
        for number in numbers:
            self.process.send_signal(number)
        outcome, ended_s = self.end().split()
        return outcome, float(ended_s) - sent_s

    def end(self) -> str:
        """The first word and the rest of what it printed; nothing of it runs any more."""
        stdout, stderr = self.process.communicate(timeout=300)
        self.told += stderr
        assert self.process.returncode == 0, self.told
        assert "Traceback" not in self.told and "Fatal" not in self.told, self.told
        assert processes_with(self.mark) == []
        return stdout.strip()


def test_what_can_never_fit_is_told_at_once_with_both_numbers(ray_cluster: Any, tmp_path: Path) -> None:
    run = Run(ray_cluster, tmp_path, workers=2, threads_per_worker=3)
    assert run.end() == (
        f"ERROR Ray cluster {ray_cluster.address}: asked for 2 workers with 3 CPUs and 0 GPUs each, 6 CPUs in all; "
        "there are 1: 1 machine with 1 CPU and 0 GPUs; lower cluster.workers, cluster.threads_per_worker or "
        "cluster.gpus_per_worker, or give cluster.wait_s when machines are still to join"
    )
    assert "waiting for machines" not in run.told


@pytest.mark.parametrize(
    ("number", "outcome"),
    [pytest.param(signal.SIGINT, "INTERRUPTED", marks=pytest.mark.slow), (signal.SIGTERM, "STOPPED")],
)
def test_one_signal_ends_the_waiting_for_machines(
    ray_cluster: Any, tmp_path: Path, number: signal.Signals, outcome: str
) -> None:
    run = Run(ray_cluster, tmp_path, workers=2, threads_per_worker=1, wait_s=300)
    run.until_told("waiting for machines to join")
    assert "asked for 2 workers with 1 CPU and 0 GPUs each, 2 CPUs in all; there are 1" in run.told
    found, seconds = run.ends_after(number)
    assert found == outcome
    assert seconds < LIMIT_S


@pytest.mark.slow
def test_one_signal_ends_the_waiting_for_busy_machines(ray_cluster: Any, tmp_path: Path) -> None:
    import ray

    ray.init(address=ray_cluster.address, log_to_driver=False)
    try:
        busy = ray.util.placement_group([{"CPU": 1}])
        assert busy.wait(60)
        run = Run(ray_cluster, tmp_path, workers=1, threads_per_worker=1)
        run.until_told("waiting for 1 worker with 1 CPU and 0 GPUs")
        assert (
            "the cluster has 1 machine with 1 CPU and 0 GPUs, and free is 1 machine with 0 CPUs and 0 GPUs" in run.told
        )
        outcome, seconds = run.ends_after(signal.SIGTERM)
        assert outcome == "STOPPED"
        assert seconds < LIMIT_S
        ray.util.remove_placement_group(busy)
    finally:
        ray.shutdown()


def test_a_signal_while_ray_starts_ends_it_without_a_trace(tmp_path: Path, ray_cluster: Any) -> None:
    for delay_s in (0.0, 1.5):
        run = Run(ray_cluster, tmp_path, workers=1, address=None)
        deadline = time.monotonic() + 120
        while not any("cluster.ray_process" in command for command in processes_with(run.mark)):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(delay_s)
        outcome, seconds = run.ends_after(signal.SIGINT, signal.SIGINT)
        assert outcome == "INTERRUPTED"
        assert seconds < LIMIT_S


@pytest.mark.slow
def test_a_machine_that_joins_ends_the_waiting_and_the_driver_without_gpus_asks_for_those_of_the_cluster(
    ray_cluster: Any, tmp_path: Path
) -> None:
    run = Run(ray_cluster, tmp_path, workers=3, threads_per_worker=1, wait_s=300)
    run.until_told("waiting for machines to join")
    # Its GPUs are a claim: torch sees none, which the worker says instead of training on something else.
    node = ray_cluster.add_node(num_cpus=6, num_gpus=3)
    try:
        outcome = run.end()
        groups = ray_cluster.global_state.placement_group_table().values()
        bundles = [list(group["bundles"].values()) for group in groups]
        assert [{"CPU": 1.0, "GPU": 1.0}] * 3 in bundles, bundles
        assert outcome.startswith("ERROR Ray gave a worker on ") and "torch sees no CUDA device there" in outcome
    finally:
        ray_cluster.remove_node(node)


@pytest.mark.slow
def test_a_driver_with_gpus_does_not_ask_a_cluster_without_them(ray_cluster: Any, tmp_path: Path) -> None:
    node = ray_cluster.add_node(num_cpus=4)
    before = """
    import torch
    torch.cuda.is_available = lambda: True
    torch.cuda.device_count = lambda: 8
    """
    try:
        answer = json.loads(Run(ray_cluster, tmp_path, workers=2, before=before).end().removeprefix("ANSWER "))
    finally:
        ray_cluster.remove_node(node)
    assert answer.pop("resources")["CPU"] == 2
    assert answer == {"device": "cpu", "accelerator": "cpu", "world_size": 2, "threads": "2"}
