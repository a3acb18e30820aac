"""The training engine: one loop, from a configuration to a model bundle."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from data_shards.reading.reader import ShardedDataset
from data_shards.stream.batch import Batch
from data_shards.stream.sample_stream import SampleStream
from data_shards.support.documents import digest, recorded, write_resolved
from data_shards.support.errors import CheckpointError, ConfigError
from data_shards.support.files import read_json
from data_shards.support.progress import Progress
from pretrain.backbone.latents import COLLECTIONS
from pretrain.bundle import save_bundle
from pretrain.checkpoint import ENGINE_TAG, Checkpoint, CheckpointStore, restore_rng, rng_state
from pretrain.config import PretrainConfig, run_digest
from pretrain.data import at_once, check_objectives, node_cache, open_datasets, open_stream, run_steps, views_of
from pretrain.health import HealthMonitor, embedding_spread, watched_embeddings
from pretrain.meter import Meter, MetricsFile, read_metrics
from pretrain.module import PretrainModule, create_backbone
from pretrain.objectives.collectives import all_gather_rows
from pretrain.optim import create_schedule, grow_state
from pretrain.probes.probe import open_probes, probe_all
from pretrain.resumption import check_same_run
from pretrain.runtime import Runtime, on_rank_zero
from pretrain.sharding import gradient_norm, initialise, zero_stage
from pretrain.stopping import StopVote
from pretrain.view_factory import ViewFactory


def run(config: PretrainConfig, runtime: Runtime, *, resume: bool = False) -> Path | None:
    """Pretrain a backbone.

    Writes ``config.yaml``, ``metrics.jsonl``, ``checkpoints/`` and, at the end, ``bundle/`` into ``config.out``; and
    ``objectives/`` where one of them keeps something. The
    same configuration on the same number of workers gives the same weights bit for bit on a CPU, however often the run
    was interrupted. A run that is refused leaves ``config.out`` as it was.

    Args:
        config: the run.
        runtime: the surroundings of this worker; its process group is initialised.
        resume: go on from the newest checkpoint in ``config.out`` when there is one; otherwise the folder must not
            exist.

    Returns:
        The bundle's folder, or None when the run was asked to stop before its end.

    Raises:
        ConfigError: the configuration does not fit the data, the model or the machine.
        CheckpointError: ``config.out`` holds a run of another configuration or model.
        TrainingError: the run has gone wrong; the last good checkpoint is kept.
        MedformerError: the output cannot be written.
    """
    stage = zero_stage(config)
    store = CheckpointStore(config.out / "checkpoints", config.checkpoint.keep)
    if not resume:
        on_rank_zero(runtime, lambda: _refuse_existing(config.out))

    torch.manual_seed(config.seed)
    module = PretrainModule(create_backbone(config.model), config.objectives).to(runtime.device)
    datasets = open_datasets(config.data)
    stream = open_stream(config, datasets, runtime)
    check_objectives(config, datasets, module.backbone)
    probes = open_probes(config.probes, node_cache(config.data.reading))
    total_steps = run_steps(config, stream.batches_per_epoch)
    engine, optimizer = initialise(module, config, runtime)
    schedule = create_schedule(optimizer, config.schedule, total_steps)
    torch.manual_seed(config.seed + runtime.rank)  # Dropout differs between ranks; the weights above must not.

    step = 0
    # Rank 0 chooses: a shared file system may show the others an older state of the folder.
    checkpoint = on_rank_zero(runtime, lambda: _intact(store.latest())) if resume else None
    if checkpoint is not None:
        step = _restore(checkpoint, engine, optimizer, stream, config, runtime)
    on_rank_zero(runtime, lambda: _prepare_output(config, store))
    make_views = ViewFactory(config, runtime.device, [each.views for each in views_of(config, datasets)])
    meter, monitor = Meter(runtime.device), HealthMonitor(config.health, module.can_collapse)
    log = MetricsFile(config.out / "metrics.jsonl", step) if runtime.rank == 0 else None
    progress = Progress(total_steps, "steps", "pretrain", initial=step, silent=runtime.rank != 0)
    batches: Iterator[Batch] = iter(stream)
    shown: dict[str, float] = {}

    module.train()
    with progress, StopVote() as vote:
        while step < total_steps:
            asked_s = time.perf_counter()
            batch = next(batches)
            waited_s = time.perf_counter() - asked_s

            step += 1
            schedule.step_update(step)
            views = make_views(batch)
            loss, parts = engine(views, (step - 1) / total_steps)
            vote.cast(runtime.stop_requested())
            engine.backward(loss)
            stop = vote.outcome()  # One rank that is asked to stop takes the others with it.

            last = step == total_steps
            save = stop or last or step % config.checkpoint.every_steps == 0
            probe = bool(probes) and (last or step % config.probes.every_steps == 0)
            observe = save or probe or step % config.log_every_steps == 0
            norm = gradient_norm(module) if observe and stage == 0 else None
            engine.step()
            module.after_step(step / total_steps)
            meter.add({"loss": loss, **parts}, batch.global_size, waited_s)

            if observe:
                watched = [all_gather_rows(each, views.rows) for each in watched_embeddings(views, module.backbone)]
                own = embedding_spread(watched)
                own["grad_norm"] = engine.get_global_grad_norm() if norm is None else norm
                metrics = meter.reduce(own)
                metrics["lr"] = float(optimizer.param_groups[0]["lr"])
                metrics["epoch"] = step / stream.batches_per_epoch
                if probe:
                    metrics |= probe_all(probes, module.backbone, runtime, at_once(config, runtime.world_size))
                    meter.restart()
                if log:
                    log.append(metrics, step)
                runtime.report(metrics, step)
                monitor.check(metrics, step)  # Before the checkpoint, so that a broken state is never saved.
                shown = {name: metrics[name] for name in ("loss", "images_per_s", "data_wait")}
            progress.advance(1, **shown)
            if save:
                _save(store, engine, stream, config, runtime, step)
            if stop and not last:
                return None

    return _export(config, runtime, module, datasets, step)


def _refuse_existing(out: Path) -> None:
    if out.exists():
        raise ConfigError(f"{out} exists already; choose another out, or pass --resume to go on")


def _intact(checkpoint: Checkpoint | None) -> Checkpoint | None:
    if checkpoint is not None:
        checkpoint.verify()
    return checkpoint


def _prepare_output(config: PretrainConfig, store: CheckpointStore) -> None:
    try:
        config.out.mkdir(parents=True, exist_ok=True)
        store.clean()
    except OSError as error:
        raise ConfigError(f"cannot write {config.out}: {error.strerror or error}") from error
    write_resolved(config, config.out)


def _save(
    store: CheckpointStore, engine: Any, stream: SampleStream, config: PretrainConfig, runtime: Runtime, step: int
) -> None:
    state = {
        "step": step,
        "attempt": runtime.attempt,
        "world_size": runtime.world_size,
        "zero_stage": zero_stage(config),
        "stream": stream.state_dict(),
        "config_sha256": run_digest(config),
        "vocabulary": _vocabulary(),
    }
    with store.write(step, runtime.attempt, state) as folder:
        engine.save_checkpoint(str(folder), tag=ENGINE_TAG, save_latest=False)
        torch.save(rng_state(), folder / f"rng-rank-{runtime.rank}.pt")
    runtime.checkpoint_saved(store.path(step, runtime.attempt), step)


def _vocabulary() -> dict[str, int]:
    """Entries of each collection: so many rows the tables of the network have."""
    return {name: len(entries) for name, entries in COLLECTIONS.items()}


def _restore(
    checkpoint: Checkpoint,
    engine: Any,
    optimizer: torch.optim.Optimizer,
    stream: SampleStream,
    config: PretrainConfig,
    runtime: Runtime,
) -> int:
    state = checkpoint.state()
    check_same_run(checkpoint, state, config, runtime.world_size)
    if state.get("vocabulary", _vocabulary()) != _vocabulary() and state["zero_stage"] > 0:
        raise CheckpointError(
            f"{checkpoint.folder} is from before an entry joined the vocabulary, and holds optimizer state that ZeRO "
            f"stage {state['zero_stage']} split over the workers as the tables were then; end the run with the version "
            "of Medformer that began it"
        )
    try:
        path, _ = engine.load_checkpoint(str(checkpoint.folder), tag=ENGINE_TAG)
    except Exception as error:
        reason = " ".join(str(error).split())[:500]
        raise CheckpointError(f"{checkpoint.folder} cannot be loaded: {reason}") from error
    if path is None:
        raise CheckpointError(f"{checkpoint.folder}: DeepSpeed found no state in it")
    grow_state(optimizer)
    stream.load_state_dict(state["stream"])
    restore_rng(checkpoint, runtime.rank, config.seed)
    return int(state["step"])


def _export(
    config: PretrainConfig,
    runtime: Runtime,
    module: PretrainModule,
    datasets: list[ShardedDataset],
    step: int,
) -> Path:
    folder = config.out / "bundle"
    if runtime.rank == 0:
        provenance = {
            "config": recorded(config),
            "config_sha256": digest(config),
            "code_version": code_version(),
            "seed": config.seed,
            "steps": step,
            "objectives": list(config.objectives),
            **_origin(config),
            "datasets": [
                {
                    "name": dataset.card.name,
                    "title": dataset.card.title,
                    "licence": dataset.card.licence,
                    "official": dataset.card.official,
                    "note": dataset.card.note,
                    "manifest_sha256": dataset.manifest_digest,
                    "split": "train",
                    "samples": len(dataset),
                }
                for dataset in datasets
            ],
        }
        # From the file: a run that was cut off after its last checkpoint goes on from there without another step.
        lines = read_metrics(config.out / "metrics.jsonl")
        metrics = {"pretraining": lines[-1] if lines else {}}
        save_bundle(folder, module.backbone, config.model.name, config.model.kwargs, provenance, metrics)
        module.export(config.out / "objectives")
    dist.barrier()
    return folder


def _origin(config: PretrainConfig) -> dict[str, Any]:
    """The bundle that the network began with, by the digest of its weights and by where those came from."""
    folder = config.model.init_from
    if folder is None:
        return {}
    weights = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    provenance = read_json(folder / "provenance.json", CheckpointError)
    return {"init_from": {"folder": str(folder), "weights_sha256": weights, "provenance": provenance}}


def code_version() -> str:
    """The version of the installed distribution, or ``unknown`` in a bare source tree."""
    try:
        return version("medformer")
    except PackageNotFoundError:
        return "unknown"
