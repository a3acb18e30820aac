"""Running one function on a group of workers with Ray Train, through the loss of workers."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig, TrainingFailedError, UserCallback
from ray.train.torch import TorchConfig, TorchTrainer

from cluster.errors import ClusterError
from cluster.ray_cluster import connected
from cluster.ray_runtime import STOP_FILE, RayRuntime
from cluster.store import first_line
from data_shards.support.errors import MedformerError
from data_shards.support.files import write_atomic

# A collective that a rank never joins ends the attempt after this time; torch's own default is 30 minutes.
_COLLECTIVE_TIMEOUT_S = 600
# How often Ray may wait in vain for the machines (each time RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S). Default: for ever.
_START_ATTEMPTS = 3
FAILURE_FILE = "failure.txt"


@dataclass(frozen=True)
class WorkerGroup:
    """How many workers, what each gets, and how many losses the run survives.

    Attributes:
        address: of a running Ray cluster; None for one on this machine.
        workers: processes that train together.
        threads_per_worker: CPU threads of each.
        gpus_per_worker: GPUs of each; 0 trains on the CPU.
        max_failures: how often the group is started again after it lost a worker.
        dashboard: whether a Ray of our own shows its dashboard.
    """

    address: str | None = None
    workers: int = 1
    threads_per_worker: int = 1
    gpus_per_worker: int = 0
    max_failures: int = 3
    dashboard: bool = False


def run_on_workers(body: Callable[[RayRuntime], Any], group: WorkerGroup, out: Path) -> Any:
    """Call ``body`` on every worker; start all of them again when one is lost.

    ``torch.distributed`` is set up (gloo, with GPUs nccl) and the environment variables of ``torchrun`` are set
    before ``body`` is called.

    Args:
        body: what to run; importable by the workers, or defined in the main program.
        group: the workers.
        out: the folder of the run, absolute, on storage that the workers share.

    Returns:
        What ``body`` returned on rank 0.

    Raises:
        MedformerError: an error of ours that ``body`` raised on any rank, as it was; it ends the run at once.
        ClusterError: the cluster is not there or does not give the workers, or the run failed more than
            ``max_failures`` times; ``failure.txt`` in ``out`` then has the traceback.
        KeyboardInterrupt: the user interrupted the run.

    SIGTERM to this process makes :meth:`RayRuntime.stop_requested` true.
    """
    resources = {"CPU": group.threads_per_worker}
    if group.gpus_per_worker:
        resources["GPU"] = group.gpus_per_worker
    failure_path = out / FAILURE_FILE
    failure_path.unlink(missing_ok=True)
    cpus, gpus = group.workers * group.threads_per_worker, group.workers * group.gpus_per_worker
    with connected(group.address, cpus=cpus, gpus=gpus, dashboard=group.dashboard):
        trainer = TorchTrainer(
            _work,
            train_loop_config={"body": body, "out": str(out), "threads": group.threads_per_worker, "cwd": os.getcwd()},
            torch_config=TorchConfig(timeout_s=_COLLECTIVE_TIMEOUT_S),
            scaling_config=ScalingConfig(
                num_workers=group.workers, use_gpu=group.gpus_per_worker > 0, resources_per_worker=resources
            ),
            run_config=RunConfig(
                name="train",
                storage_path=str(out / "ray"),
                failure_config=FailureConfig(
                    max_failures=group.max_failures, controller_failure_limit=_START_ATTEMPTS - 1
                ),
                callbacks=[_EndOnOurErrors()],
                worker_runtime_env={"env_vars": _worker_environment(group)},
                logging_config=LoggingConfig(log_level="CRITICAL"),
            ),
        )
        _stop_on_sigterm(out / STOP_FILE)
        try:
            return trainer.fit().return_value
        except TrainingFailedError as error:
            raise _readable(error, group, failure_path) from error
        except SystemExit:
            # Ray's answer to Ctrl-C.
            raise KeyboardInterrupt from None


class _EndOnOurErrors(UserCallback):
    """Ends the run when a worker raised an error of ours: what a user has to put right does not mend by itself.

    Ray Train starts the workers again after any exception of theirs, but not after one of its own controller, where
    this is called.
    """

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        for rank in sorted(worker_exceptions):
            if isinstance(worker_exceptions[rank], MedformerError):
                raise worker_exceptions[rank]


def _work(config: dict[str, Any]) -> Any:
    """The training function of Ray Train, on every worker."""
    torch.set_num_threads(config["threads"])
    if os.path.isdir(config["cwd"]):
        os.chdir(config["cwd"])  # Relative paths mean what they meant to the user, where the folder is there.
    return config["body"](RayRuntime(Path(config["out"])))


def _stop_on_sigterm(stop_file: Path) -> None:
    """Let the run write a checkpoint and end when Slurm or Kubernetes is about to end this process."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda number, frame: stop_file.touch())


def _worker_environment(group: WorkerGroup) -> dict[str, str]:
    environment = {"OMP_NUM_THREADS": str(group.threads_per_worker)}
    if not group.gpus_per_worker:
        # DeepSpeed otherwise guesses from what is installed.
        environment["DS_ACCELERATOR"] = "cpu"
    return environment


def _readable(error: TrainingFailedError, group: WorkerGroup, failure_path: Path) -> MedformerError:
    """What Ray Train gave up on, in one line."""
    cause = getattr(error, "controller_failure", None)
    if isinstance(cause, MedformerError):
        return cause
    write_atomic(failure_path, f"{error}\n")
    failures = getattr(error, "worker_failures", {})
    if failures:
        rank = min(failures)
        summary = f"{type(failures[rank]).__name__}: {first_line(failures[rank])}"
        return ClusterError(
            f"the run failed for good after {group.max_failures} restarts; rank {rank}: {summary}; see {failure_path}"
        )
    wanted = f"{group.workers} workers with {group.threads_per_worker} CPUs and {group.gpus_per_worker} GPUs each"
    return ClusterError(f"Ray could not run {wanted}: {first_line(cause or error)}; see {failure_path}")
