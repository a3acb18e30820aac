"""How long training waits for checkpoints, and what ZeRO 1 costs beside plain DDP: two processes, in turn."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from scipy.stats import binom
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from benchmarks.table import Table
from data_shards.sources.phantoms import Phantoms
from data_shards.writing.writer import write_dataset
from pretrain.checkpoint import CheckpointStore
from pretrain.config import PretrainConfig
from pretrain.data import open_datasets, open_stream
from pretrain.module import PretrainModule, create_backbone
from pretrain.objectives import Views
from pretrain.optim import create_optimizer
from pretrain.runtime import TorchRuntime, _free_port
from pretrain.saving.writer import CheckpointWriter
from pretrain.sharding import initialise
from pretrain.view_factory import ViewFactory

WORKERS, IMAGES, MODEL = 2, 64, "medformer_nano"
PAIRS, CHECKPOINTS, EVERY = 20, 8, 100
INTERVAL_S = 600.0


def run() -> Table:
    """Ratios of ZeRO 1 to DDP and of a checkpoint to the steps between two."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_dataset(Phantoms("phantom-knee-mri-2d", subjects=60, images_per_subject=2), folder / "shards")
        mp.spawn(_work, (_free_port(), folder), nprocs=WORKERS)
        found = torch.load(folder / "found.pt")
    step_s, size_mib = found["step_s"], found["bytes"] / 2**20
    wait_s, written_s, at_once_s = (statistics.median(found[key]) for key in ("wait_s", "written_s", "at_once_s"))
    rows = [
        ("a step of ZeRO 1 / of DDP, wall", *_ratio(found["zero_wall"], found["ddp_wall"])),
        ("a step of ZeRO 1 / of DDP, processor", *_ratio(found["zero_cpu"], found["ddp_cpu"])),
        ("training waits for a checkpoint, ms", f"{wait_s * 1e3:.1f}", _range(found["wait_s"], 1e3)),
        ("the same, written while it waits, ms", f"{at_once_s * 1e3:.1f}", _range(found["at_once_s"], 1e3)),
        ("written beside the training in, ms", f"{written_s * 1e3:.1f}", _range(found["written_s"], 1e3)),
        (f"share of {EVERY} steps that is waited", f"{wait_s / (EVERY * step_s):.3%}", ""),
        (f"share of {INTERVAL_S / 60:.0f} minutes that is waited", f"{wait_s / INTERVAL_S:.4%}", ""),
    ]
    return Table(
        title="Checkpoints and ZeRO 1 beside the training",
        command="python -m benchmarks checkpointing",
        columns=("what", "median", "95 % interval, or range"),
        rows=tuple(rows),
        remarks=f"{WORKERS} processes with one thread each, gloo; {MODEL}, SimCLR, {IMAGES} images of 28 x 28, AdamW; "
        f"a step takes {step_s * 1e3:.0f} ms and a checkpoint {size_mib:.0f} MiB. ZeRO 1 and DDP take their steps in "
        f"turn, {PAIRS} pairs, in the same processes on the same views. The load of the machine was "
        f"{os.getloadavg()[0]:.0f} on {os.cpu_count()} cores.",
    )


def _work(rank: int, port: int, folder: Path) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(WORKERS)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "CUDA_VISIBLE_DEVICES": ""}
    runtime = TorchRuntime()
    config = PretrainConfig.model_validate(
        {
            "out": str(folder / "out"),
            "data": {"datasets": [{"path": str(folder / "shards")}], "batch_size": IMAGES},
            "model": {"name": MODEL},
            "objectives": {"simclr": {}},
            "deepspeed": {"zero_optimization": {"stage": 1}},
        }
    )
    datasets = open_datasets(config)
    batch = next(iter(open_stream(config, datasets, runtime)))
    views = ViewFactory(config, runtime.device)(batch)
    plain, split = (_module(config, views) for _ in range(2))
    ddp, ddp_optimizer = DistributedDataParallel(plain), create_optimizer(plain, config.optimizer, 1)
    engine, _ = initialise(split, config, runtime)

    def step_of_ddp() -> None:
        ddp_optimizer.zero_grad()
        ddp(replace(views, _made={}), 0.0)[0].backward()
        nn.utils.clip_grad_norm_(plain.parameters(), config.optimizer.clip_norm)
        ddp_optimizer.step()

    def step_of_zero() -> None:
        engine.backward(engine(replace(views, _made={}), 0.0)[0])
        engine.step()

    found = _in_turn(step_of_zero, step_of_ddp)
    found["step_s"] = statistics.median(found["zero_wall"])
    found |= _checkpoints(CheckpointStore(folder / "checkpoints"), runtime, engine, step_of_zero)
    if rank == 0:
        torch.save(found, folder / "found.pt")
    dist.barrier()
    runtime.close()


def _module(config: PretrainConfig, views: Views) -> PretrainModule:
    """A module of which every parameter gets a gradient: DDP waits for all of them."""
    torch.manual_seed(0)
    module = PretrainModule(create_backbone(config.model), config.objectives)
    module(replace(views, _made={}), 0.0)[0].backward()
    for parameter in module.parameters():
        parameter.requires_grad_(parameter.grad is not None)
        parameter.grad = None
    return module


def _in_turn(zero: Callable[[], None], ddp: Callable[[], None]) -> dict[str, Any]:
    found: dict[str, Any] = {f"{name}_{clock}": [] for name in ("zero", "ddp") for clock in ("wall", "cpu")}
    for number in range(-2, PAIRS):
        order = [("zero", zero), ("ddp", ddp)]
        for name, step in order if number % 2 else reversed(order):
            dist.barrier()
            wall_s, cpu_s = time.perf_counter(), time.process_time()
            step()
            if number >= 0:
                found[f"{name}_wall"].append(time.perf_counter() - wall_s)
                found[f"{name}_cpu"].append(time.process_time() - cpu_s)
    return found


def _checkpoints(
    store: CheckpointStore, runtime: TorchRuntime, engine: Any, step: Callable[[], None]
) -> dict[str, Any]:
    found: dict[str, Any] = {"wait_s": [], "written_s": [], "at_once_s": []}
    completed: list[float] = []
    writer = CheckpointWriter(store, runtime, lambda _: completed.append(time.perf_counter()))

    def begin(number: int) -> float:
        dist.barrier()
        began_s = time.perf_counter()
        writer.save(number, {}, lambda folder: engine.checkpoint_engine.take(engine, folder))
        return began_s

    for number in range(2 * CHECKPOINTS):
        began_s = begin(number)
        if number % 2:
            writer.finish()
            found["at_once_s"].append(time.perf_counter() - began_s)
            continue
        found["wait_s"].append(time.perf_counter() - began_s)
        for _ in range(3):
            step()
        writer.finish()
        if runtime.rank == 0:
            found["written_s"].append(completed[-1] - began_s)
    newest = store.latest()
    assert newest is not None
    return found | {"bytes": sum(path.stat().st_size for path in newest.folder.rglob("*.pt"))}


def _ratio(first: list[float], second: list[float]) -> tuple[str, str]:
    ratios = sorted(one / other for one, other in zip(first, second, strict=True))
    below = int(binom.ppf(0.025, len(ratios), 0.5)) - 1  # the sign test turned round
    return f"{statistics.median(ratios):.3f}", f"{ratios[below]:.3f} to {ratios[-1 - below]:.3f}"


def _range(times_s: list[float], factor: float) -> str:
    return f"{min(times_s) * factor:.1f} to {max(times_s) * factor:.1f}"
