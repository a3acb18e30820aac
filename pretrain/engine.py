"""The training engine: one loop, from a configuration to a model bundle."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from data_shards.reading.reader import ShardedDataset
from data_shards.stream.batch import Batch
from data_shards.stream.sample_stream import SampleStream
from data_shards.support.allocator import keep_freed_memory
from data_shards.support.documents import digest, recorded, write_resolved
from data_shards.support.errors import CheckpointError, ConfigError
from data_shards.support.files import finite, read_json, sha256_of
from data_shards.support.progress import Progress
from pretrain.backbone.latents import COLLECTIONS
from pretrain.bundle import save_bundle
from pretrain.changes import check_keys
from pretrain.checkpoint import ENGINE_TAG, STATE, Checkpoint, CheckpointStore, restore_rng, rng_state
from pretrain.config import PretrainConfig, run_digest
from pretrain.data import (
    at_once,
    check_objectives,
    node_cache,
    open_datasets,
    open_stream,
    rules_of,
    run_steps,
    trained_on,
    views_of,
)
from pretrain.figures.run_figures import RunFigures
from pretrain.health import HealthMonitor, embedding_spread, watched_embeddings
from pretrain.meter import Meter, MetricsFile, read_metrics
from pretrain.module import PretrainModule, create_backbone
from pretrain.objectives.collectives import all_gather_rows
from pretrain.optim import create_schedule, grow_state
from pretrain.partitions import whole
from pretrain.probes.probe import open_probes, probe_all
from pretrain.reshard import load_resharded
from pretrain.reshard_split import load_split
from pretrain.resumption import check_same_run, check_stem
from pretrain.runtime import Runtime, on_rank_zero
from pretrain.saving.courier import Courier, check_copies, newest_copy, open_courier
from pretrain.saving.policy import check_metric, retire
from pretrain.saving.writer import CheckpointWriter
from pretrain.sharding import gradient_norm, initialise, zero_stage
from pretrain.stopping import StepVote
from pretrain.view_factory import ViewFactory


def run(config: PretrainConfig, runtime: Runtime, *, resume: bool = False) -> Path | None:
    """Pretrain a backbone.

    Writes ``config.yaml``, ``metrics.jsonl``, ``checkpoints/``, ``figures/`` and, at the end, ``bundle/`` into
    ``config.out``; and ``objectives/`` where one of them keeps something. The
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
    keep_freed_memory()
    stage = zero_stage(config)
    store = CheckpointStore(config.out / "checkpoints")
    if not resume:
        on_rank_zero(runtime, lambda: _refuse_existing(config.out))

    torch.manual_seed(config.seed)
    module = PretrainModule(create_backbone(config.model), config.objectives).to(runtime.device)
    datasets = open_datasets(config)
    stream = open_stream(config, datasets, runtime)
    check_objectives(config, datasets, module.backbone)
    probes = open_probes(config.probes, node_cache(config.data.reading), config.data.crop)
    total_steps = run_steps(config, stream.batches_per_epoch)
    engine, optimizer = initialise(module, config, runtime)
    schedule = create_schedule(optimizer, config.schedule, total_steps)
    torch.manual_seed(config.seed + runtime.rank)  # Dropout differs between ranks; the weights above must not.

    step = 0
    # Rank 0 chooses: a shared file system may show the others an older state of the folder.
    checkpoint = on_rank_zero(runtime, lambda: _chosen(config, store, runtime)) if resume else None
    if checkpoint is not None:
        step = _restore(checkpoint, engine, optimizer, stream, config, runtime)
    on_rank_zero(runtime, lambda: _prepare_output(config, store, resume=resume))
    augmentation = [each.views for each in views_of(config, datasets)]
    make_views = ViewFactory(config, runtime.device, augmentation, rules_of(config, datasets))
    meter, monitor = Meter(runtime.device), HealthMonitor(config.health, module.can_collapse)
    log = MetricsFile(config.out / "metrics.jsonl", step) if runtime.rank == 0 else None
    figures = RunFigures(config.out, datasets, runtime.rank)
    progress = Progress(total_steps, "steps", "pretrain", initial=step, silent=runtime.rank != 0)
    batches: Iterator[Batch] = iter(stream)
    shown: dict[str, float] = {}

    courier = open_courier(config.checkpoint, store)
    writer = CheckpointWriter(store, runtime, lambda _: _kept(store, config, courier))

    module.train()
    with progress, StepVote() as vote, writer:
        while step < total_steps:
            asked_s = time.perf_counter()
            batch = next(batches)
            waited_s = time.perf_counter() - asked_s

            step += 1
            schedule.step_update(step)
            views = make_views(batch)
            if step == 1:
                figures.views(views, batch.dataset, step)
            loss, parts = engine(views, (step - 1) / total_steps)
            vote.cast(writer.votes(runtime.stop_requested()))
            engine.backward(loss)
            votes = vote.outcome()
            stop = votes.stop
            writer.note(votes)

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
                    figures.views(views, batch.dataset, step)
                    rows = at_once(config, runtime.world_size)
                    metrics |= probe_all(probes, module.backbone, runtime, rows, partial(figures.embeddings, step=step))
                    meter.restart()
                check_metric(config.checkpoint.keep_best, metrics, probe)
                if log:
                    log.append(metrics, step)
                runtime.report(metrics, step)
                monitor.check(metrics, step)  # Before the checkpoint, so that a broken state is never saved.
                shown = {name: metrics[name] for name in ("loss", "images_per_s", "data_wait")}
            progress.advance(1, **shown)
            if save:
                state = _state(stream, config, runtime, step, metrics) | {"stem": module.backbone.stem_args}
                writer.save(step, state, lambda folder: _taken(engine, folder, runtime))
            if stop or last:
                writer.finish()
            if stop:
                break

    bundle = _export(config, runtime, module, datasets, step) if step == total_steps else None
    if runtime.rank == 0:
        courier.finish()  # The others need not wait: a collective would run out of time.
    return bundle


def _refuse_existing(out: Path) -> None:
    if out.exists():
        raise ConfigError(f"{out} exists already; choose another out, or pass --resume to go on")


def _chosen(config: PretrainConfig, store: CheckpointStore, runtime: Runtime) -> Checkpoint | None:
    """The checkpoint to go on from, which is intact; the newest copy is fetched when it is newer than those here."""
    if (copy := newest_copy(config.checkpoint, store)) is not None:
        place = Checkpoint(store.path(copy.step, copy.attempt), copy.step, copy.attempt)
        check_same_run(place, copy.state(), config, runtime.world_size)
        copy.fetch(store)
    if (checkpoint := store.latest()) is not None:
        checkpoint.verify()
    return checkpoint


def _kept(store: CheckpointStore, config: PretrainConfig, courier: Courier) -> None:
    """Remove what is no longer kept, here and among the copies."""
    retire(store, config.checkpoint)
    courier.send()


def _prepare_output(config: PretrainConfig, store: CheckpointStore, *, resume: bool) -> None:
    check_copies(config.checkpoint, resume=resume)
    try:
        config.out.mkdir(parents=True, exist_ok=True)
        store.clean()
    except OSError as error:
        raise ConfigError(f"cannot write {config.out}: {error.strerror or error}") from error
    write_resolved(config, config.out)


def _state(
    stream: SampleStream, config: PretrainConfig, runtime: Runtime, step: int, metrics: Mapping[str, float]
) -> dict[str, Any]:
    """What is noted in a checkpoint beside the tensors."""
    return {
        "step": step,
        "attempt": runtime.attempt,
        "world_size": runtime.world_size,
        "zero_stage": zero_stage(config),
        "stream": stream.state_dict(),
        "config_sha256": run_digest(config),
        "vocabulary": _vocabulary(),
        "metrics": finite(dict(metrics)),
    }


def _taken(engine: Any, folder: Path, runtime: Runtime) -> dict[str, Any]:
    """Copies of what this rank writes into a checkpoint, by file name."""
    taken: dict[str, Any] = engine.checkpoint_engine.take(engine, folder)
    return taken | {f"rng-rank-{runtime.rank}.pt": rng_state()}


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
    check_keys(state, ["stream"], str(checkpoint.folder / STATE))
    check_stem(checkpoint, state, config, engine.module.backbone.stem_args)
    if state.get("vocabulary", _vocabulary()) != _vocabulary() and state["zero_stage"] > 0:
        raise CheckpointError(
            f"{checkpoint.folder} is from before an entry joined the vocabulary, and holds optimizer state that ZeRO "
            f"stage {state['zero_stage']} split over the workers as the tables were then; end the run with the version "
            "of Medformer that began it"
        )
    try:
        if state["zero_stage"] == 0 or state["world_size"] == runtime.world_size:
            path, _ = engine.load_checkpoint(str(checkpoint.folder), tag=ENGINE_TAG)
        elif state["zero_stage"] == 3:
            path = load_split(engine, checkpoint.folder, ENGINE_TAG)
        else:
            path = load_resharded(engine, checkpoint.folder, ENGINE_TAG)
    except CheckpointError:
        raise
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
    with whole(module.backbone):
        on_rank_zero(runtime, lambda: _write_bundle(folder, config, module, datasets, step))
    with whole(module.objectives):
        on_rank_zero(runtime, lambda: module.export(config.out / "objectives"))
    return folder


def _write_bundle(
    folder: Path, config: PretrainConfig, module: PretrainModule, datasets: list[ShardedDataset], step: int
) -> None:
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
                "samples": dataset.layout.images,
            }
            for dataset in datasets
        ],
    }
    # From the file: a run that was cut off after its last checkpoint goes on from there without another step.
    lines = read_metrics(config.out / "metrics.jsonl")
    metrics = {"pretraining": lines[-1] if lines else {}}
    save_bundle(
        folder,
        module.backbone,
        config.model.name,
        config.model.kwargs,
        provenance,
        metrics,
        trained_on(config, datasets),
    )


def _origin(config: PretrainConfig) -> dict[str, Any]:
    """The bundle or file that the network began with, by the digest of its weights and by where those came from."""
    folder = config.model.init_from
    if folder is None:
        return {}
    if not folder.is_dir():
        return {"init_from": {"file": str(folder), "weights_sha256": sha256_of(folder)}}
    weights = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    provenance = read_json(folder / "provenance.json", CheckpointError)
    return {"init_from": {"folder": str(folder), "weights_sha256": weights, "provenance": provenance}}


def code_version() -> str:
    """The version of the installed distribution, or ``unknown`` in a bare source tree."""
    try:
        return version("medformer")
    except PackageNotFoundError:
        return "unknown"
