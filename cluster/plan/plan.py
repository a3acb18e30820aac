"""The plan of a run: everything that can be told of it before it starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cluster.plan.checkpoints import checkpoint_bytes
from cluster.plan.fitting import Steps, largest_rows, micro_batch, worst
from cluster.plan.gpus import peak_tflops
from cluster.plan.images import Mixture, distinct
from cluster.plan.interval import daly_s, goodput, young_s
from cluster.plan.measure import Measured
from cluster.plan.memory import STAGES, Memory, Module, memory
from cluster.plan.optimizer import state_bytes
from cluster.plan.parameters import Counts, counted, total
from cluster.plan.rate import Rate, from_peak, measured, told
from cluster.plan.step import shapes_of
from data_shards.support.errors import ConfigError
from pretrain.config import PretrainConfig
from pretrain.data import run_steps
from pretrain.optim import ELEMENTWISE

_GIB = 1 << 30
_HOUR_S = 3600.0
HEADROOM = 0.9
"""The part of a GPU's memory that is planned with: the driver, work space of kernels and gaps take the rest."""


@dataclass(frozen=True)
class Machines:
    """What a run is to have.

    Attributes:
        gpus: workers, each with one.
        memory_gib: of each; None when that does not matter.
        gpu: its name in :data:`~cluster.plan.gpus.PEAK_TFLOPS`; None when no rate is to be estimated.
        utilisation: fraction of the peak that an estimate goes by.
        images_per_s: rate of each, when it is known.
        mtbf_h: mean hours between two failures of one GPU and what belongs to it; None when nothing fails.
        restart_s: from a failure to the next step.
        write_mib_s: rate at which a checkpoint is written, of all workers together.
        write_s: how long training waits for a checkpoint, when it is known.
    """

    gpus: int
    memory_gib: float | None = None
    gpu: str | None = None
    utilisation: float = 0.3
    images_per_s: float | None = None
    mtbf_h: float | None = None
    restart_s: float = 120.0
    write_mib_s: float = 500.0
    write_s: float | None = None


@dataclass(frozen=True)
class Fit:
    """Which batch fits into a GPU.

    Attributes:
        fits: whether that of the document does.
        rows: images of a rank that fit at once; 0 when none do.
        batch_size: the global batch that follows.
        micro_batch_size: what ``data.micro_batch_size`` may be at most for the batch of the document; None when that
            fits as it is, 0 when no value makes it fit.
    """

    fits: bool
    rows: int
    batch_size: int
    micro_batch_size: int | None


@dataclass(frozen=True)
class Checkpoints:
    """What checkpoints take, and how often they pay.

    Attributes:
        bytes: of one.
        write_s: how long training waits for it.
        mtbf_s: mean time between two failures of the run; None when nothing fails.
        young_s: work between two, to first order.
        daly_s: the same to higher order.
        best_steps: the same in steps.
        goodput: fraction of the time that is kept, with that interval.
        document_goodput: the same with ``checkpoint.every_steps`` of the document.
    """

    bytes: int
    write_s: float
    mtbf_s: float | None
    young_s: float | None
    daly_s: float | None
    best_steps: int | None
    goodput: float | None
    document_goodput: float | None


@dataclass(frozen=True)
class Plan:
    """What a run needs.

    Attributes:
        machines: what it was planned for.
        rows: images of a rank in a step.
        stage: of ZeRO, that the document asks for.
        parameters: of each part.
        flops: operations of a step of one rank, with what is computed again.
        forward_flops: those of its forward pass.
        memory: of a rank, by the stage of ZeRO; without the stages that the optimizer does not allow.
        fit: whether the batch fits; None when the memory was not told.
        steps: of the run; None when the number of images was not told.
        rate: of its steps; None when nothing is known of it.
        work_s: seconds of all steps; None when one of the two is not known.
        checkpoints: what they take.
        expected_s: seconds to the end, checkpoints and failures included; None when they are not known.
        notes: what else has to be known, a sentence each.
    """

    machines: Machines
    rows: int
    stage: int
    parameters: tuple[Counts, ...]
    flops: int
    forward_flops: int
    memory: tuple[Memory, ...]
    fit: Fit | None
    steps: int | None
    rate: Rate | None
    work_s: float | None
    checkpoints: Checkpoints
    expected_s: float | None
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {**asdict(self), "memory": [{**asdict(each), "peak": each.peak} for each in self.memory]}


def make_plan(
    config: PretrainConfig, machines: Machines, mixture: Mixture, measurement: Measured | None = None
) -> Plan:
    """Plan a run.

    Args:
        config: the run.
        machines: what it is to have.
        mixture: its images.
        measurement: of some of its steps on this machine; its rate then counts.

    Raises:
        ConfigError: a part of the document cannot be followed; what was told of the machines is impossible.
    """
    check_machines(machines)
    stage, zero = _stage(config)
    rows = -(-config.data.batch_size // machines.gpus)
    if config.data.batch_size < 2 * machines.gpus:
        raise ConfigError(
            f"data.batch_size {config.data.batch_size}: each of {machines.gpus} workers needs two images of every batch"
        )
    module, counts = _module(config)
    kinds = [Steps(config, images, machines.gpus) for images in distinct(mixture).values()]
    micro = config.data.micro_batch_size
    steps = {key: kind.at(rows, micro) for key, kind in zip(distinct(mixture), kinds, strict=True)}
    allowed = STAGES if config.optimizer.name in ELEMENTWISE else (0,)
    if stage not in allowed:
        raise ConfigError(f"optimizer.name: {config.optimizer.name} cannot be used with ZeRO stage {stage}")

    def needed(stage: int, rows: int, micro: int | None) -> Memory:
        each = [memory(module, kind.at(rows, micro), stage=stage, ranks=machines.gpus, zero=zero) for kind in kinds]
        return worst(each)

    memories = tuple(needed(each, rows, micro) for each in allowed)
    fit = None
    if machines.memory_gib is not None:
        limit = int(HEADROOM * machines.memory_gib * _GIB)
        fits = memories[stage].peak <= limit
        most = largest_rows(lambda count: needed(stage, count, None).peak, limit, rows)
        part = None if fits else micro_batch(lambda count: needed(stage, rows, count).peak, limit, rows)
        fit = Fit(fits, most, most * machines.gpus, part)
    weighted = list(zip(mixture.sets, mixture.shares, strict=True))
    of = [(steps[each.shape, each.views.model_dump_json()], share) for each, share in weighted]
    flops = round(sum(step.flops * share for step, share in of))
    forward = round(sum(step.forward_flops * share for step, share in of))
    rate = _rate(machines, flops, rows, measurement)
    count = None if mixture.epoch_steps is None else run_steps(config, mixture.epoch_steps)
    work_s = None if count is None or rate is None else count * rate.step_s
    kept = _checkpoints(config, machines, checkpoint_bytes(module, stage), rate, measurement)
    reached = kept.document_goodput
    return Plan(
        machines, rows, stage, counts, flops, forward, memories, fit, count, rate, work_s, kept,
        None if work_s is None or not reached else work_s / reached,
        tuple(_notes(config, machines, memories[allowed.index(stage)], module)),
    )  # fmt: skip


def check_machines(machines: Machines) -> None:
    """Refuse what no machine is.

    Raises:
        ConfigError: a number that cannot be, or a GPU of unknown peak; the option is named.
    """
    if machines.gpu is not None:
        peak_tflops(machines.gpu)
    limits = {
        "--gpus": machines.gpus >= 1,
        "--gpu-memory": machines.memory_gib is None or machines.memory_gib > 0,
        "--utilisation": 0 < machines.utilisation <= 1,
        "--images-per-s": machines.images_per_s is None or machines.images_per_s > 0,
        "--mtbf": machines.mtbf_h is None or machines.mtbf_h > 0,
        "--restart-s": machines.restart_s >= 0,
        "--write-mib-s": machines.write_mib_s > 0,
        "--checkpoint-s": machines.write_s is None or machines.write_s > 0,
    }
    for option, possible in limits.items():
        if not possible:
            raise ConfigError(f"{option}: a positive number is expected" + (", 1 at most" if "util" in option else ""))


def _stage(config: PretrainConfig) -> tuple[int, dict[str, Any]]:
    section = config.deepspeed.get("zero_optimization", {})
    stage = section.get("stage", 0) if isinstance(section, dict) else section
    if not isinstance(section, dict) or stage not in STAGES:
        raise ConfigError(f"deepspeed.zero_optimization.stage: {stage!r}; expected 0, 1, 2 or 3")
    return int(stage), section


def _module(config: PretrainConfig) -> tuple[Module, tuple[Counts, ...]]:
    module = shapes_of(config)
    counts = counted(module)
    every = total(counts)
    low = any((config.deepspeed.get(each) or {}).get("enabled") for each in ("bf16", "fp16"))
    state = state_bytes(module, config.optimizer)
    return Module(every.trained, every.frozen, every.buffer_bytes, state, 2 if low else 4), counts


def _rate(machines: Machines, flops: int, rows: int, measurement: Measured | None) -> Rate | None:
    if machines.images_per_s is not None:
        return told(machines.images_per_s, rows)
    if measurement is not None:
        return measured(measurement.images_per_s, rows, measurement.device, machines.gpus)
    if machines.gpu is not None:
        return from_peak(flops, machines.gpu, peak_tflops(machines.gpu), machines.utilisation)
    return None


def _checkpoints(
    config: PretrainConfig, machines: Machines, size: int, rate: Rate | None, measurement: Measured | None
) -> Checkpoints:
    write_s = machines.write_s or (measurement.write_s if measurement else size / (machines.write_mib_s * (1 << 20)))
    mtbf_s = None if machines.mtbf_h is None else machines.mtbf_h * _HOUR_S / machines.gpus
    young = daly = best = kept = None
    if mtbf_s is not None:
        young, daly = young_s(write_s, mtbf_s), daly_s(write_s, mtbf_s)
        kept = goodput(daly, write_s, machines.restart_s, mtbf_s)
        best = None if rate is None else max(1, round(daly / rate.step_s))
    every = None if rate is None else config.checkpoint.every_steps * rate.step_s
    own = None if every is None else goodput(every, write_s, machines.restart_s, mtbf_s)
    return Checkpoints(size, write_s, mtbf_s, young, daly, best, kept, own)


def _notes(config: PretrainConfig, machines: Machines, needed: Memory, module: Module) -> Sequence[str]:
    notes = []
    if config.data.batch_size % machines.gpus:
        notes.append(
            f"data.batch_size {config.data.batch_size} is no multiple of {machines.gpus}: ranks differ by an image."
        )
    if config.model.kwargs.get("voxel_mm") is not None:
        notes.append("model.kwargs.voxel_mm: images are planned at the size they are stored with; the network reads "
                     "them at another one.")  # fmt: skip
    gradients = module.weight_bytes * module.trained
    if needed.stage and needed.buckets > 2 * gradients:
        notes.append(
            f"deepspeed.zero_optimization.reduce_bucket_size: a bucket takes {needed.buckets / _GIB:.1f} GiB for "
            f"{gradients / _GIB:.2g} GiB of gradients; {module.trained} is enough."
        )
    return notes
