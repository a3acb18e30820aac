"""A pretraining from its document to a registered model: workers on Ray, curves in MLflow, a bundle at the end."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import RegistryError
from cluster.interruptions import Interruptions, StopAsked
from cluster.new_folder import made_unless_in_vain
from cluster.page import how_to_open
from cluster.progress import ShownProgress
from cluster.ray_runtime import FAILURE_FILE, GROW_FILE, STOP_FILE, RayRuntime
from cluster.ray_train import run_on_workers, settled
from cluster.reference import check_name
from cluster.registry import Registry
from cluster.run_facts import dataset_inputs, run_tags, training_data
from cluster.store import Store, store_errors
from cluster.system_metrics import sampled
from cluster.tracking import TrackedRun
from cluster.worker_group import WorkerGroup
from data_shards.support.documents import recorded
from data_shards.support.errors import ConfigError
from data_shards.support.files import refuse_existing
from pretrain import preflight
from pretrain.checkpoint import CheckpointStore
from pretrain.config import ClusterConfig, PretrainConfig
from pretrain.resumption import finished_bundle
from pretrain.saving.courier import newest_copy


def launch(config: PretrainConfig, *, resume: bool) -> Path | None:
    """Pretrain on Ray Train, on this machine or on the cluster that ``config.cluster`` names.

    Args:
        config: the run.
        resume: go on from the newest checkpoint in ``config.out``; otherwise that folder must not exist.

    Returns:
        The model bundle, or None when the run was asked to stop before its end. The bundle is also registered when
        ``config.cluster.model_name`` is set; that of a run that had finished before is only returned.

    Raises:
        MedformerError: whatever has to be put right first, in one line: a folder that exists, more workers than this
            machine has CPUs, a cluster or a tracking server that does not answer, a loss that is not finite, ...
    """
    out = config.out.expanduser().absolute()
    config = config.model_copy(update={"out": out})
    place = config.cluster
    if place.model_name is not None:
        check_name(place.model_name)
    if out.exists() and not resume:
        raise ConfigError(f"{out} exists already; choose another out, or pass --resume to go on")
    refuse_existing(out, overwrite=resume)  # what may be in the way of it, before a cluster starts
    with Interruptions() as interruptions:
        try:
            preflight.check(config, place.max_workers, resume=resume, least=place.min_workers)
            if resume and (finished := finished_bundle(config)) is not None:
                print(f"finished already, nothing is trained or registered; the model is in {finished}")
                _tell_late(config)
                return finished
            group = settled(worker_group(place))
            for remark in preflight.remarks(config):
                _warn(remark)
            if resume:
                print(beginning(config))
            return _launch(config, group, interruptions)
        except StopAsked:
            return None


def trained_steps(config: PretrainConfig) -> int | None:
    """The step of the newest checkpoint or copy of one, after which a run goes on; None when there is none."""
    store = CheckpointStore(config.out / "checkpoints")
    newest = newest_copy(config.checkpoint, store) or store.latest()
    return None if newest is None else newest.step


def beginning(config: PretrainConfig) -> str:
    """From where a run that is resumed goes on, in words."""
    step = trained_steps(config)
    if step is None:
        return f"no checkpoint in {config.out}: the run begins at its first step"
    return f"going on after step {step}"


def _launch(config: PretrainConfig, group: WorkerGroup, interruptions: Interruptions) -> Path | None:
    out, place = config.out, config.cluster
    registry = Registry(place.tracking_uri)
    with made_unless_in_vain(out, ("metrics.jsonl", FAILURE_FILE)):
        for name in (STOP_FILE, GROW_FILE):
            (out / name).unlink(missing_ok=True)
        tracked = _tracked(config, registry.store)
        initial = trained_steps(config) or 0
        shown = ShownProgress(out, config.schedule.epochs, config.schedule.max_steps, initial=initial)
        with tracked, shown:
            bundle = run_on_workers(_Pretraining(config), group, out, interruptions=interruptions)
            tracked.stopped = bundle is None
    print(f"the run in MLflow: {how_to_open(registry.store, tracked.experiment_id, tracked.run_id)}")
    if bundle is None:
        return None
    if place.model_name is not None:
        _register(registry, Path(bundle), place.model_name, tracked.run_id)
    return Path(bundle)


def _tracked(config: PretrainConfig, store: Store) -> TrackedRun:
    data = training_data(config)
    return TrackedRun(
        store,
        config.out,
        experiment=config.cluster.experiment,
        name=config.out.name,
        params=recorded(config),
        tags=run_tags(config, data),
        datasets=dataset_inputs(data),
        texts={"datasets.json": json.dumps([vars(each) for each in data], indent=2)},
        warn=_warn,
    )


def _tell_late(config: PretrainConfig) -> None:
    """Send what the tracking server missed of a run that came to its end while the server was lost."""
    run_id = TrackedRun.id_of(config.out)
    if run_id is None:
        return
    try:
        store = Store(config.cluster.tracking_uri)
        with store_errors(f"read the run {run_id}"):
            known = store.client.get_run(run_id).info.status
        if known != "FINISHED":
            with _tracked(config, store):
                pass
    except RegistryError as error:  # the run is finished all the same
        _warn(f"tracking: {error}")


def _register(registry: Registry, bundle: Path, name: str, run_id: str) -> None:
    """Publish; whatever comes between, say how it is made up for: a run that has ended is not resumed for it."""
    try:
        published = registry.publish(bundle, name, run_id=run_id)
    except BaseException:
        _warn(f"the model is not registered; 'medformer models publish {bundle} --name {name}' does it")
        raise
    print(f"registered {published.name}:{published.version} in {registry.store.shown}")


def worker_group(place: ClusterConfig) -> WorkerGroup:
    """The workers of a configuration; what it leaves open is decided by what the cluster has."""
    return WorkerGroup(
        address=place.address,
        workers=place.max_workers,
        min_workers=place.min_workers,
        threads_per_worker=place.threads_per_worker,
        gpus_per_worker=place.gpus_per_worker,
        max_failures=place.max_failures,
        wait_s=place.wait_s,
        dashboard=place.dashboard,
        grow_every_s=place.grow_every_s,
        hang_after_s=place.hang_after_s,
        stuck_after_s=place.stuck_after_s,
    )


@dataclass(frozen=True)
class _Pretraining:
    """What each worker does."""

    config: PretrainConfig

    def __call__(self, runtime: RayRuntime) -> str | None:
        from pretrain.engine import run

        # Always on from the newest checkpoint: `launch` has seen that a new run has none, and a restarted one may.
        runtime.begun_after(trained_steps(self.config) or 0)
        with sampled(self.config.out, runtime.node, runtime.device) if runtime.local_rank == 0 else nullcontext():
            bundle = run(self.config, runtime, resume=True)
        if bundle is None:
            runtime.wait_for_others()
        return None if bundle is None else str(bundle)


def _warn(message: str) -> None:
    print(f"medformer: {message}", file=sys.stderr, flush=True)
