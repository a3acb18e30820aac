"""Ray Train's part: the same function on every worker, through the loss of workers. Runs in the process of Ray."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from ray.exceptions import RayActorError
from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig, TrainingFailedError, UserCallback
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError, WorkerHealthCheckTimeoutError

from cluster import defaults
from cluster.capacity import Share, wanted
from cluster.errors import ClusterError
from cluster.ray_runtime import FAILURE_FILE, RayRuntime, read_attempt
from cluster.restarts import note, reasons
from cluster.room import release_groups
from cluster.scaling import RoomPolicy
from cluster.store import first_line
from cluster.watch import WorkerWatch
from cluster.worker_group import WorkerGroup
from data_shards.support.errors import MedformerError
from data_shards.support.files import write_atomic

# A collective that a rank never joins ends the attempt so long after the watch should have: it says more.
_COLLECTIVE_MARGIN_S = 60
# How often Ray may wait in vain for the machines (each time RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S). Default: for ever.
_START_ATTEMPTS = 3
# Of a group whose size may change Ray waits for less time, and then counts anew what is there.
_ELASTIC_START_TIMEOUT_S, _ELASTIC_START_ATTEMPTS = "30", 30

_LOST = (WorkerHealthCheckFailedError, WorkerHealthCheckTimeoutError)


def train(body: Callable[[RayRuntime], Any], group: WorkerGroup, share: Share, out: Path) -> Any:
    """Call ``body`` on every worker; see :func:`cluster.ray_train.run_on_workers` for what it promises.

    Args:
        body: what to run.
        group: the workers.
        share: what each of them gets.
        out: the folder of the run.
    """
    os.environ["RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"] = f"{group.hang_after_s:g}"
    name = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
    if group.elastic and os.environ.get(name) == defaults.RAY[name]:  # not one that the user has set
        os.environ[name] = _ELASTIC_START_TIMEOUT_S
    losses = 0
    while True:
        try:
            return _trainer(body, group, share, out).fit().return_value
        except TrainingFailedError as error:
            raise _readable(error, group, share, out) from error
        except RayActorError as error:
            # Ray Train starts workers again, but not its controller, which ends its workers with it.
            reason = "the process of Ray Train that leads the workers was lost"
            note(out, read_attempt(out), reason)
            losses += 1
            if losses > group.max_failures:
                write_atomic(out / FAILURE_FILE, f"{error}\n")
                raise ClusterError(
                    f"the run failed for good after {group.max_failures} restarts; {reason}; see {out / FAILURE_FILE}"
                ) from error
            release_groups()


def _trainer(body: Callable[[RayRuntime], Any], group: WorkerGroup, share: Share, out: Path) -> _Trainer:
    starts = _ELASTIC_START_ATTEMPTS if group.elastic else _START_ATTEMPTS
    trainer = _Trainer(
        _work,
        train_loop_config={"body": body, "out": str(out), "threads": share.threads, "cwd": os.getcwd()},
        torch_config=_CheckedTorchConfig(timeout_s=int(group.stuck_after_s + _COLLECTIVE_MARGIN_S)),
        scaling_config=ScalingConfig(
            num_workers=(group.least, group.workers) if group.elastic else group.workers,
            use_gpu=share.gpus > 0,
            resources_per_worker=share.as_resources(),
            elastic_resize_monitor_interval_s=group.grow_every_s,
        ),
        run_config=RunConfig(
            name="train",
            storage_path=str(out / "ray"),
            failure_config=FailureConfig(max_failures=group.max_failures, controller_failure_limit=starts - 1),
            callbacks=[_EndOnOurErrors(), WorkerWatch(out, group.hang_after_s, group.stuck_after_s)],
            worker_runtime_env={"env_vars": _worker_environment(share)},
            logging_config=LoggingConfig(log_level="CRITICAL"),
        ),
    )
    trainer.policy = RoomPolicy(trainer.scaling_config, share, out) if group.elastic else None
    return trainer


class _Trainer(TorchTrainer):
    """Ray's trainer with a scaling policy of ours, which it has no argument for."""

    policy: RoomPolicy | None = None

    def _initialize_and_run_controller(self, **arguments: Any) -> Any:
        if self.policy is not None:
            arguments["scaling_policy"] = self.policy
        return super()._initialize_and_run_controller(**arguments)


class _EndOnOurErrors(UserCallback):
    """Ends the run when a worker raised an error of ours: what a user has to put right does not mend by itself.

    Ray Train starts the workers again after any exception of theirs, but not after one of its own controller, where
    this is called.
    """

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        for rank in sorted(worker_exceptions):
            if isinstance(worker_exceptions[rank], MedformerError):
                raise worker_exceptions[rank]


class _CheckedBackend(TorchConfig().backend_cls):  # type: ignore[misc]
    """Ray's set-up of ``torch.distributed``, after a look at the GPUs: its own errors do not name what is missing."""

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        worker_group.execute(_check_gpus)
        super().on_start(worker_group, backend_config)


class _CheckedTorchConfig(TorchConfig):
    @property
    def backend_cls(self) -> type:
        return _CheckedBackend


def _check_gpus() -> None:
    """On a worker: torch can use the GPUs that Ray has given it."""
    import ray

    given = ray.get_gpu_ids()
    if given and not torch.cuda.is_available():
        raise ClusterError(
            f"Ray gave a worker on {ray.util.get_node_ip_address()} GPU {given[0]}, but torch sees no CUDA device "
            "there; cluster.gpus_per_worker=0 trains on CPUs"
        )


def _work(config: dict[str, Any]) -> Any:
    """The training function of Ray Train, on every worker."""
    torch.set_num_threads(config["threads"])
    if os.path.isdir(config["cwd"]):
        os.chdir(config["cwd"])  # Relative paths mean what they meant to the user, where the folder is there.
    return config["body"](RayRuntime(Path(config["out"])))


def _worker_environment(share: Share) -> dict[str, str]:
    environment = {"OMP_NUM_THREADS": str(share.threads)}
    if not share.gpus:
        # DeepSpeed otherwise guesses from what is installed.
        environment["DS_ACCELERATOR"] = "cpu"
    return environment


def _readable(error: TrainingFailedError, group: WorkerGroup, share: Share, out: Path) -> MedformerError:
    """What Ray Train gave up on, in one line."""
    failure_path = out / FAILURE_FILE
    cause = getattr(error, "controller_failure", None)
    # What came through a call of Ray is wrapped, and its text is a traceback.
    cause = getattr(cause, "cause", cause)
    if isinstance(cause, MedformerError):
        return cause
    write_atomic(failure_path, f"{error}\n")
    failures = getattr(error, "worker_failures", {})
    if failures:
        rank = min(failures)
        summary = f"rank {rank}: {type(failures[rank]).__name__}: {first_line(failures[rank])}"
        known = reasons(out)
        if known and not any(type(failure).__module__ == "builtins" for failure in failures.values()):
            summary = known[-1][1]  # the watch says more of a lost worker than Ray
        return ClusterError(
            f"the run failed for good after {group.max_failures} restarts; {summary}; see {failure_path}"
        )
    return ClusterError(
        f"Ray could not run {wanted(group.least, share)}: {first_line(cause or error)}; see {failure_path}"
    )
