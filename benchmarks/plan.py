"""What ``medformer plan`` says beside what real runs on the CPU take.

``python -m benchmarks plan`` runs every setting in processes of its own, by the parts of the training engine. Bytes of
a step are those that torch's profiler saw allocated at once, from the views to the optimizer's step.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch.profiler import ProfilerActivity, profile

from benchmarks.table import Table
from cluster.plan.images import read_mixture
from cluster.plan.measure import measure
from cluster.plan.parameters import total
from cluster.plan.plan import Machines, make_plan
from data_shards.sources.phantoms import Phantoms
from data_shards.support.documents import load
from data_shards.writing.writer import write_dataset
from pretrain.checkpoint import CheckpointStore
from pretrain.config import PretrainConfig
from pretrain.data import open_datasets, open_stream, rules_of, views_of
from pretrain.module import PretrainModule, create_backbone
from pretrain.runtime import TorchRuntime
from pretrain.saving.writer import CheckpointWriter
from pretrain.sharding import initialise
from pretrain.view_factory import ViewFactory

STEPS = 6
_MEASURED_STEPS = 3
_WARM_UP = 2
_MARK = "measured: "
_PLANE, _VOLUME = "phantom-knee-mri-2d", "phantom-brain-mri"
_SMALL = {"embed_dim": 64, "depth": 2, "num_heads": 2, "latents": 8}


@dataclass(frozen=True)
class Setting:
    """One run.

    Attributes:
        objective: its name.
        images: name of the phantoms.
        kwargs: of the backbone.
        workers: processes.
        stage: of ZeRO.
        batch: images of a step, of all workers.
    """

    objective: str
    images: str
    kwargs: dict[str, int]
    workers: int
    stage: int
    batch: int = 32


SETTINGS = (
    Setting("barlow_twins", _PLANE, _SMALL, 2, 0),
    Setting("byol", _PLANE, {}, 2, 1),
    Setting("restore", _VOLUME, _SMALL, 2, 2, 8),
    Setting("dino", _PLANE, {}, 1, 0),
    Setting("masked", _VOLUME, {}, 1, 1, 8),
)


def run() -> Table:
    """A row for each setting."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for images in (_PLANE, _VOLUME):
            write_dataset(Phantoms(images, subjects=60, images_per_subject=2), folder / images)
        rows = tuple(_row(setting, folder) for setting in SETTINGS)
    return Table(
        title="What a plan says of a run, beside the run",
        command="python -m benchmarks plan",
        columns=(
            "objective", "image", "workers", "ZeRO", "parameters (trained)", "checkpoint, MiB", "planned",
            "memory of a step, MiB", "planned", "a step, s", "by `--measure`",
        ),
        rows=rows,
        remarks=f"Planned figures with their error. Batches of {SETTINGS[0].batch}, of volumes {SETTINGS[-1].batch}. "
        "Memory is what a worker allocates from the views to the end of the optimizer's step, at its most; buckets of "
        f"10^6 numbers. A step is the median of {STEPS}; `--measure` takes {_MEASURED_STEPS} in one process before, "
        "which for two workers says how fast each would be with a core of its own. Parameters agree exactly in every "
        "row, or the benchmark ends.",
    )  # fmt: skip


def _row(setting: Setting, folder: Path) -> tuple[str, ...]:
    path = folder / "run.yaml"
    document = {
        "out": str(folder / "out"),
        "data": {"datasets": [{"path": str(folder / setting.images)}], "batch_size": setting.batch},
        "model": {"kwargs": setting.kwargs},
        "objectives": {setting.objective: {}},
        "deepspeed": {"zero_optimization": {"stage": setting.stage, "reduce_bucket_size": 1_000_000}},
    }
    path.write_text(yaml.safe_dump(document))
    config = load(PretrainConfig, path)
    took = measure(config, setting.workers, _MEASURED_STEPS)
    mixture = read_mixture(config, setting.workers)
    plan = make_plan(config, Machines(setting.workers), mixture, took)
    found = _measured(path, setting.workers)
    counts = total(plan.parameters)
    if [counts.trained, counts.frozen] != found["parameters"]:
        raise AssertionError(f"{setting}: planned {counts}, found {found['parameters']}")
    each = plan.memory[setting.stage]
    needed = each.peak - each.weights - each.optimizer
    assert plan.rate is not None
    row = (
        setting.objective,
        "x".join(map(str, mixture.sets[0].shape)),
        str(setting.workers),
        str(setting.stage),
        f"{counts.trained:,}",
        f"{found['checkpoint'] / 2**20:.1f}",
        _against(plan.checkpoints.bytes, found["checkpoint"]),
        f"{found['step_bytes'] / 2**20:.1f}",
        _against(needed, found["step_bytes"]),
        f"{found['step_s']:.3f}",
        f"{plan.rate.step_s:.3f} ({plan.rate.step_s / found['step_s'] - 1:+.0%})",
    )
    print("benchmarks:", *row, sep=" | ", file=sys.stderr, flush=True)
    return row


def _against(planned: float, found: float) -> str:
    return f"{planned / 2**20:.1f} ({planned / found - 1:+.1%})"


def _measured(path: Path, workers: int) -> dict[str, Any]:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={workers}"] if workers > 1 else []
    finished = subprocess.run(
        [sys.executable, *launcher, "-m", "benchmarks.plan", str(path)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line.removeprefix(_MARK) for line in finished.stdout.splitlines() if line.startswith(_MARK)]
    if not lines:
        raise RuntimeError(finished.stderr)
    result: dict[str, Any] = json.loads(lines[0])
    return result


def worker(path: Path) -> None:
    """Take steps as a worker of the run, and print what they took on rank 0."""
    torch.set_num_threads(1)
    config = load(PretrainConfig, path)
    runtime = TorchRuntime()
    torch.manual_seed(config.seed)
    module = PretrainModule(create_backbone(config.model), config.objectives)
    numbers = {True: 0, False: 0}
    for parameter in module.parameters():
        numbers[parameter.requires_grad] += parameter.numel()
    datasets = open_datasets(config)
    stream = open_stream(config, datasets, runtime)
    engine, _ = initialise(module, config, runtime)
    make_views = ViewFactory(
        config, runtime.device, [each.views for each in views_of(config, datasets)], rules_of(config, datasets)
    )
    batches = iter(stream)
    module.train()

    def step() -> None:
        loss, parts = engine(make_views(next(batches)), 0.0)
        del parts
        engine.backward(loss)
        engine.step()
        module.after_step(0.0)

    seconds = []
    for number in range(STEPS + _WARM_UP):
        started_s = time.perf_counter()
        step()
        if number >= _WARM_UP:
            seconds.append(time.perf_counter() - started_s)
    module.zero_grad(set_to_none=True)  # what the step before has left is none of this one's
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    events = [each for each in profiler.profiler.kineto_results.events() if each.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda each: each.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    stage = config.deepspeed["zero_optimization"]["stage"]
    store = CheckpointStore(path.parent / f"checkpoints-{stage}-{runtime.world_size}")
    writer = CheckpointWriter(store, runtime, lambda _: None)
    writer.save(STEPS, {}, lambda folder: engine.checkpoint_engine.take(engine, folder))
    writer.finish()
    torch.distributed.barrier()
    if runtime.rank == 0:
        newest = store.latest()
        assert newest is not None
        found = {
            "parameters": [numbers[True], numbers[False]],
            "step_bytes": most,
            "step_s": statistics.median(seconds),
            "checkpoint": sum(each.stat().st_size for each in newest.folder.rglob("*") if each.is_file()),
        }
        print(_MARK + json.dumps(found), flush=True)
    runtime.close()


if __name__ == "__main__":
    worker(Path(sys.argv[1]))
