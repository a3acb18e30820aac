"""A pretraining from its document to a registered model: workers on Ray, curves in MLflow, a bundle at the end."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cluster.progress import ShownProgress
from cluster.ray_runtime import STOP_FILE, RayRuntime
from cluster.ray_train import FAILURE_FILE, WorkerGroup, run_on_workers
from cluster.reference import check_name
from cluster.registry import Registry
from cluster.tracking import TrackedRun
from data_shards.support.documents import digest, resolved
from data_shards.support.errors import ConfigError, MedformerError
from pretrain.config import ClusterConfig, PretrainConfig


def launch(config: PretrainConfig, *, resume: bool) -> Path | None:
    """Pretrain on Ray Train, on this machine or on the cluster that ``config.cluster`` names.

    Args:
        config: the run.
        resume: go on from the newest checkpoint in ``config.out``; otherwise that folder must not exist.

    Returns:
        The model bundle, or None when the run was asked to stop before its end. The bundle is also registered when
        ``config.cluster.model_name`` is set.

    Raises:
        MedformerError: whatever has to be put right first, in one line: a folder that exists, a cluster or a tracking
            server that does not answer, a loss that is not finite, ...
    """
    out = config.out.expanduser().absolute()
    config = config.model_copy(update={"out": out})
    place = config.cluster
    if place.model_name is not None:
        check_name(place.model_name)
    if out.exists() and not resume:
        raise ConfigError(f"{out} exists already; choose another out, or pass --resume to go on")
    registry = Registry(place.tracking_uri)
    with _new_unless_trained(out):
        (out / STOP_FILE).unlink(missing_ok=True)
        tracked = TrackedRun(
            registry.store,
            out,
            experiment=place.experiment,
            name=out.name,
            params=resolved(config),
            tags={"medformer.config_sha256": digest(config), "medformer.out": str(out)},
            warn=_warn,
        )
        with tracked, ShownProgress(out, config.schedule.epochs, config.schedule.max_steps):
            bundle = run_on_workers(_Pretraining(config), worker_group(place), out)
            tracked.stopped = bundle is None
    if bundle is None:
        return None
    if place.model_name is not None:
        published = registry.publish(Path(bundle), place.model_name, run_id=tracked.run_id)
        print(f"registered {published.name}:{published.version} in {registry.store.uri}")
    return Path(bundle)


def worker_group(place: ClusterConfig) -> WorkerGroup:
    """The workers of a configuration, with what it leaves open decided by this machine."""
    import torch

    gpus = place.gpus_per_worker
    if gpus is None:
        gpus = int(torch.cuda.device_count() >= place.workers)
    threads = place.threads_per_worker or max(1, (os.cpu_count() or 1) // place.workers)
    return WorkerGroup(
        address=place.address,
        workers=place.workers,
        threads_per_worker=threads,
        gpus_per_worker=gpus,
        max_failures=place.max_failures,
        dashboard=place.dashboard,
    )


@dataclass(frozen=True)
class _Pretraining:
    """What each worker does."""

    config: PretrainConfig

    def __call__(self, runtime: RayRuntime) -> str | None:
        from pretrain.engine import run

        # Always on from the newest checkpoint: `launch` has seen that a new run has none, and a restarted one may.
        bundle = run(self.config, runtime, resume=True)
        if bundle is None:
            runtime.wait_if_preempted()
        return None if bundle is None else str(bundle)


@contextlib.contextmanager
def _new_unless_trained(out: Path) -> Iterator[None]:
    """Make the folder of a run; remove it again if the run fails before there is anything in it to keep."""
    new = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{out} cannot be made: {error.strerror or error}") from error
    try:
        yield
    except MedformerError:
        worth_keeping = ("metrics.jsonl", FAILURE_FILE)
        if new and not any((out / name).exists() for name in worth_keeping):
            shutil.rmtree(out, ignore_errors=True)
        raise


def _warn(message: str) -> None:
    print(f"medformer: {message}", file=sys.stderr, flush=True)
