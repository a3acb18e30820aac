"""The pretraining document: everything a run depends on, in one YAML file."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from data_shards.intensity import IntensityRule
from data_shards.order.lanes import Locality
from data_shards.reading.cropped import Crop
from data_shards.support.documents import Document, resolved
from data_shards.support.errors import nearest
from data_shards.support.secrets import has_password
from pretrain.probes.config import ProbesConfig
from pretrain.views.config import ViewConfig

Count = Annotated[int, Field(gt=0)]

_OWNED_BY_US = {
    "optimizer": "optimizer",
    "scheduler": "schedule",
    "train_batch_size": "data.batch_size",
    "train_micro_batch_size_per_gpu": "data.micro_batch_size",
    "gradient_accumulation_steps": "data.micro_batch_size",
    "gradient_clipping": "optimizer.clip_norm",
}


_PREPARE = (
    "what is done before values are stored is an option of `medformer shards build`: prepare.spacing_mm, "
    "prepare.intensity.window, ..."
)
_INTENSITY = (
    "the rule by which stored values are read is said of each dataset: data.datasets.0.intensity; "
    "prepare.intensity.window of `medformer shards build` makes 8 bits of values before they are stored"
)


class DatasetConfig(Document):
    """One shard folder of the mixture.

    Attributes:
        path: folder that holds ``manifest.json``, or its URL, such as ``s3://bucket/set``.
        image: which image of the studies is read; may be left out when they have only one.
        weight: share of the steps relative to the other datasets; None for every dataset gives each its natural
            share, so that an epoch shows every image once.
        views: augmentation of this dataset; None takes that of the run.
        intensity: how stored values become the range of the network; None takes the rule of the manifest, or 8 bits.
    """

    elsewhere: ClassVar[dict[str, str]] = {
        "prepare": _PREPARE,
        "stored": "the dtype of the values is that of the shards: stored of `medformer shards build`",
        "crop": "crops are of all volumes of the run alike: data.crop",
    }

    path: Annotated[str, BeforeValidator(lambda path: str(path) if isinstance(path, Path) else path)]
    image: str | None = None
    weight: Annotated[float, Field(gt=0)] | None = None
    views: ViewConfig | None = None
    intensity: IntensityRule | None = None


class ReadingConfig(Document):
    """How batches come to a worker; none of it changes which samples they hold.

    Attributes:
        readers: threads or processes that read ahead; 0 reads between the steps.
        kind: ``thread`` is enough for shards of raw pixels; ``process`` for pictures that have to be decoded.
        prefetch: batches read ahead.
        pin_memory: page-locked batches, copied to the GPU without waiting; None where there is a GPU.
        lookahead: of how many of the next batches remote shards are fetched.
        cache: where remote shards are kept, one folder for all workers of a node; None for a folder in
            ``$MEDFORMER_HOME``.
        cache_gib: the most that the cache holds, in GiB.
        whole_shards: whether remote shards of which crops are shown are fetched as a whole and kept; otherwise what
            crops need is fetched, each time anew. None for those of a dataset that fits into the cache.
    """

    readers: Annotated[int, Field(ge=0)] = 1
    kind: Literal["thread", "process"] = "thread"
    prefetch: Count = 2
    pin_memory: bool | None = None
    lookahead: Annotated[int, Field(ge=0)] = 32
    cache: Path | None = None
    cache_gib: Annotated[float, Field(gt=0)] = 100.0
    whole_shards: bool | None = None


class StageConfig(Document):
    """A part of a curriculum.

    Attributes:
        until: fraction of the run at which it ends.
        weights: share of the steps of each dataset, in their order; 0 leaves one out.
    """

    until: Annotated[float, Field(gt=0, le=1)] = 1.0
    weights: Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=1)]


class DataConfig(Document):
    """What is read.

    Attributes:
        datasets: the mixture; only the ``train`` split is read.
        batch_size: images in the global batch, over all workers.
        micro_batch_size: images of a worker whose views go through the network at once; the gradient is that of the
            whole batch. None for all of them.
        temperature: instead of weights: the share of a dataset is its size to the power 1/temperature; 1 is in
            proportion to size, a large number makes all equal.
        curriculum: instead of weights: stages of the run, each with weights of its own.
        crop: what of each volume is shown; None for all of it. Planes are shown whole.
        locality: None shuffles each dataset as a whole, for shards that lie on the node; lanes and window make each
            node read only its part of the shards in an epoch.
        reading: threads, read-ahead and cache.
    """

    elsewhere: ClassVar[dict[str, str]] = {
        "intensity": _INTENSITY,
        "prepare": _PREPARE,
        "stored": DatasetConfig.elsewhere["stored"],
    }

    datasets: Annotated[list[DatasetConfig], Field(min_length=1)]
    batch_size: Count = 256
    micro_batch_size: Count | None = None
    temperature: Annotated[float, Field(ge=1)] | None = None
    curriculum: list[StageConfig] | None = None
    crop: Crop | None = None
    locality: Locality | None = None
    reading: ReadingConfig = ReadingConfig()

    @field_validator("datasets")
    @classmethod
    def _weights_all_or_none(cls, datasets: list[DatasetConfig]) -> list[DatasetConfig]:
        if len({dataset.weight is None for dataset in datasets}) > 1:
            raise ValueError("give a weight to every dataset or to none")
        return datasets

    @model_validator(mode="after")
    def _weights_or_temperature(self) -> DataConfig:
        if self.temperature is not None and self.datasets[0].weight is not None:
            raise ValueError("give weights or a temperature, not both")
        return self

    @model_validator(mode="after")
    def _stages_follow_one_another(self) -> DataConfig:
        stages = self.curriculum
        if stages is None:
            return self
        if self.temperature is not None or self.datasets[0].weight is not None:
            raise ValueError("give a curriculum, or weights or a temperature of the datasets, not both")
        ends = [stage.until for stage in stages]
        if not ends or ends != sorted(set(ends)) or ends[-1] != 1:
            raise ValueError(f"curriculum: stages end at {ends}; expected rising fractions of the run, the last one 1")
        for number, stage in enumerate(stages, start=1):
            if len(stage.weights) != len(self.datasets) or not any(stage.weights):
                raise ValueError(
                    f"curriculum: stage {number} has weights {stage.weights}; expected one for each of "
                    f"{len(self.datasets)} datasets, and one above 0"
                )
        for place, dataset in enumerate(self.datasets):
            if not any(stage.weights[place] for stage in stages):
                raise ValueError(f"curriculum: {dataset.path} has weight 0 in every stage; leave it out")
        return self


class ModelConfig(Document):
    """The backbone.

    Attributes:
        name: of a network of ours, or ``timm:`` and the name of any model of timm.
        kwargs: passed to ``timm.create_model``.
        metadata_dropout: probability that organ, modality or task of a view is given as unknown, each on its own.
        grad_checkpointing: recompute activations to save memory.
        init_from: folder of a model bundle whose weights the network begins with; name and kwargs must be those of
            the bundle. Or, for a network of timm, a local safetensors file. None begins with random weights.
    """

    name: str = "medformer_nano"
    kwargs: dict[str, Any] = {}
    metadata_dropout: Annotated[float, Field(ge=0, le=1)] = 0.1
    grad_checkpointing: bool = False
    init_from: Path | None = None


class OptimizerConfig(Document):
    """The optimizer, one of timm's.

    Attributes:
        name: as in ``timm.optim.list_optimizers()``.
        lr: peak learning rate.
        weight_decay: not applied to biases, norms, latents and queries.
        betas: of the Adam family; None for the optimizer's own.
        clip_norm: largest norm of the global gradient; 0 for no limit.
        kwargs: further arguments of the optimizer.
    """

    name: str = "adamw"
    lr: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    betas: tuple[float, float] | None = None
    clip_norm: Annotated[float, Field(ge=0)] = 3.0
    kwargs: dict[str, Any] = {}

    @field_validator("name")
    @classmethod
    def _is_in_timm(cls, name: str) -> str:
        from timm.optim import list_optimizers

        if name not in list_optimizers():
            raise ValueError(f"timm has no optimizer {name!r}{nearest(name, list_optimizers())}"[:300])
        return name


class ScheduleConfig(Document):
    """Linear warm-up, then a cosine.

    Attributes:
        epochs: passes over the mixture.
        max_steps: stop after so many optimizer steps; None for no limit. The cosine ends there too.
        warmup_fraction: of all steps.
        final_fraction: learning rate at the end, as a fraction of the peak.
    """

    epochs: Count = 10
    max_steps: Count | None = None
    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    final_fraction: Annotated[float, Field(ge=0, le=1)] = 0.001


class KeepBest(Document):
    """By what the best checkpoints are chosen.

    Attributes:
        metric: what is logged under this name at the step of a checkpoint, such as ``loss`` or
            ``probe/NAME/knn_auc``; a checkpoint at whose step it is not logged is not ranked.
        mode: whether the smallest (``min``) or the largest (``max``) values are the best.
        count: how many stay.
    """

    metric: str
    mode: Literal["min", "max"]
    count: Count = 1


class CheckpointConfig(Document):
    """When training checkpoints are written, and which of them stay.

    Attributes:
        every_steps: optimizer steps between two; one is also written at the end and when the run is asked to stop.
        keep: how many of the newest stay.
        keep_best: which others stay for what was measured at their step; None for none.
        keep_every_steps: those of every so many steps stay, too; None for none.
        to: folder behind a URL that fsspec knows, such as ``s3://bucket/run``, to which complete checkpoints are
            copied; None for none.
    """

    every_steps: Count = 100
    keep: Count = 2
    keep_best: KeepBest | None = None
    keep_every_steps: Count | None = None
    to: str | None = None

    @model_validator(mode="after")
    def _are_written(self) -> CheckpointConfig:
        if self.keep_every_steps is not None and self.keep_every_steps % self.every_steps:
            raise ValueError(
                f"keep_every_steps: {self.keep_every_steps} is not a multiple of every_steps, {self.every_steps}"
            )
        return self


class HealthConfig(Document):
    """When a run is stopped because it has gone wrong.

    Attributes:
        max_grad_norm: a gradient norm above this, before clipping, is an explosion.
        min_embedding_std: the standard deviation of unit-length embeddings, times the root of their width, is 1 when
            they spread over the sphere and 0 when they are all the same; below this they count as collapsed.
        patience: consecutive log lines that must show a collapse.
    """

    max_grad_norm: Annotated[float, Field(gt=0)] = 1e4
    min_embedding_std: Annotated[float, Field(ge=0, lt=1)] = 0.02
    patience: Count = 5


_WORKERS = re.compile(r"(\d{1,6})(?::(\d{1,6}))?")


class ClusterConfig(Document):
    """Where the run takes place; none of it changes what is learned.

    Attributes:
        address: of a Ray cluster; None starts one on this machine.
        workers: training processes: a number, or ``MIN:MAX`` for as many as there is room for.
        threads_per_worker: CPU threads of each; None takes as many as the cluster has for every worker.
        gpus_per_worker: 0 or 1; None takes one when the cluster has one for every worker.
        max_failures: restarts after a lost worker or node.
        wait_s: how long machines that have not joined the cluster yet are waited for, in seconds; an autoscaler is
            given its time in any case.
        grow_every_s: how often room for more workers is looked for, when ``workers`` is a range.
        hang_after_s: a worker whose process answers nothing for so long is ended, and the workers start again.
        stuck_after_s: the same for workers that answer, but whose training does not go on for so long; more than a
            step, a probe or a checkpoint takes.
        experiment: MLflow experiment.
        tracking_uri: MLflow server; None for the store on this machine.
        model_name: name under which the model is registered; None registers nothing.
        dashboard: whether the local Ray starts its dashboard.
    """

    address: str | None = None
    workers: int | str = 1
    threads_per_worker: Count | None = None
    gpus_per_worker: Annotated[int, Field(ge=0, le=1)] | None = None
    max_failures: Annotated[int, Field(ge=0)] = 3
    wait_s: Annotated[float, Field(ge=0)] = 0.0
    grow_every_s: Annotated[float, Field(gt=0)] = 60.0
    hang_after_s: Annotated[float, Field(ge=5)] = 60.0
    stuck_after_s: Annotated[float, Field(ge=5)] = 1800.0
    experiment: str = "pretraining"
    tracking_uri: str | None = None
    model_name: str | None = None
    dashboard: bool = False

    @field_validator("workers", mode="before")
    @classmethod
    def _workers_are_a_number_or_a_range(cls, workers: object) -> int | str:
        found = _WORKERS.fullmatch(str(workers))
        least, most = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
        if not 0 < least <= most:
            raise ValueError("expected a number above 0, or MIN:MAX such as 1:4, the smaller one first")
        return least if least == most else f"{least}:{most}"

    @property
    def min_workers(self) -> int:
        """The fewest workers that train."""
        return int(str(self.workers).partition(":")[0])

    @property
    def max_workers(self) -> int:
        """The most workers that train."""
        return int(str(self.workers).rpartition(":")[2])

    @model_validator(mode="after")
    def _no_password(self) -> ClusterConfig:
        # Documents are recorded beside the output, with the model, and sent with a job. Not a check of the field: its
        # message would say what was found.
        if self.tracking_uri is not None and has_password(self.tracking_uri):
            raise ValueError(
                "tracking_uri: expected an address without user and password; MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, belong into the environment"
            )
        return self


class PretrainConfig(Document):
    """One pretraining run.

    Attributes:
        out: output folder.
        seed: of initial weights, sample order, augmentation and metadata dropout.
        data: what is read.
        model: the backbone.
        views: augmentation.
        objectives: parameters of each objective by its name, ``weight`` among them.
        optimizer: the optimizer.
        schedule: its learning rate over the run.
        precision: ``fp32`` or ``bf16`` (autocast on a GPU).
        deepspeed: passed to DeepSpeed untouched.
        checkpoint: when checkpoints are written.
        health: when a run is stopped.
        probes: labelled images on which the embeddings are probed meanwhile.
        log_every_steps: optimizer steps between two log lines.
        cluster: where the run takes place.
    """

    elsewhere: ClassVar[dict[str, str]] = {**DataConfig.elsewhere, "crop": DatasetConfig.elsewhere["crop"]}

    out: Path
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    data: DataConfig
    model: ModelConfig = ModelConfig()
    views: ViewConfig = ViewConfig()
    objectives: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    precision: Literal["fp32", "bf16"] = "fp32"
    deepspeed: dict[str, Any] = {}
    checkpoint: CheckpointConfig = CheckpointConfig()
    health: HealthConfig = HealthConfig()
    probes: ProbesConfig = ProbesConfig()
    log_every_steps: Count = 10
    cluster: ClusterConfig = ClusterConfig()

    @field_validator("objectives")
    @classmethod
    def _objectives_are_known(cls, objectives: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        from pretrain.objectives import check_parameters

        # Kept resolved, so that the hash covers the defaults of the objectives too.
        return {name: check_parameters(name, parameters or {}).model_dump() for name, parameters in objectives.items()}

    @field_validator("deepspeed")
    @classmethod
    def _ours_are_ours(cls, deepspeed: dict[str, Any]) -> dict[str, Any]:
        for key, ours in _OWNED_BY_US.items():
            if key in deepspeed:
                raise ValueError(f"{key!r} is set by {ours!r}")
        return deepspeed

    @model_validator(mode="after")
    def _best_is_probed(self) -> PretrainConfig:
        best = self.checkpoint.keep_best
        if best is not None and best.metric.startswith("probe/") and not self.probes.datasets:
            raise ValueError(f"checkpoint.keep_best.metric: {best.metric!r} needs probes.datasets")
        return self


PLACE_KEYS = (
    "out",
    "cluster",
    "log_every_steps",
    "checkpoint",
    "probes",
    "data.reading",
    "data.datasets.path",
    "data.micro_batch_size",
)
"""Keys that may differ between a run and its resumption: they do not change what is learned."""


def run_digest(config: PretrainConfig) -> str:
    """SHA-256 of all that a resumed run must have in common with the one it goes on from.

    The folders of the datasets may have moved: their content is in the state of the sample stream.
    """
    return hashlib.sha256(json.dumps(run_content(resolved(config)), sort_keys=True).encode()).hexdigest()


def run_content(content: dict[str, Any]) -> dict[str, Any]:
    """What of a resolved document a resumed run must have in common with the one it goes on from."""
    kept = copy.deepcopy(content)
    for key in PLACE_KEYS:
        _remove(kept, key.split("."))
    return kept


def _remove(content: Any, path: list[str]) -> None:
    if isinstance(content, list):
        for inner in content:
            _remove(inner, path)
    elif isinstance(content, dict) and len(path) > 1:
        _remove(content.get(path[0]), path[1:])
    elif isinstance(content, dict):
        content.pop(path[0], None)
