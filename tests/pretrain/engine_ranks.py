"""What spawned ranks do in the tests of the engine; importable by them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data_shards.reading.reader import ShardedDataset
from data_shards.stream.sample_stream import SampleStream
from pretrain.config import PretrainConfig
from pretrain.engine import run
from pretrain.module import PretrainModule, create_backbone
from pretrain.objectives import Views
from pretrain.optim import create_optimizer
from pretrain.view_factory import ViewFactory
from tests.pretrain.runs import GroupRuntime, document

ZERO_STEPS = 10


def zero_document(shards: Path, out: Path, stage: int) -> dict[str, Any]:
    return document(
        shards,
        out,
        schedule={"max_steps": ZERO_STEPS},
        deepspeed={"zero_optimization": {"stage": stage}},
        checkpoint={"every_steps": 6},
    )


def zero_stages(rank: int, world_size: int, shards: Path, folder: Path) -> None:
    """Every stage in turn, and stage 2 once more with a stop after step 4."""
    for stage in (0, 1, 2):
        out = folder / f"stage-{stage}"
        assert run(PretrainConfig.model_validate(zero_document(shards, out, stage)), GroupRuntime())
    config = PretrainConfig.model_validate(zero_document(shards, folder / "stopped", 2))
    runtime = GroupRuntime(stop_after=4 if rank == 1 else None)  # One rank is asked; all of them stop.
    assert run(config, runtime) is None
    assert [step for _, step in runtime.saved] == [4]
    assert run(config, GroupRuntime(), resume=True)


def trained_in_float64(rank: int, world_size: int, config: PretrainConfig, steps: int) -> dict[str, Tensor]:
    """The engine's training step without DeepSpeed, in double precision: gradients are averaged as it does."""
    torch.manual_seed(config.seed)
    module = PretrainModule(create_backbone(config.model), config.objectives).double()
    optimizer = create_optimizer(module, config.optimizer, 0)
    datasets = [ShardedDataset(dataset.path, "train") for dataset in config.data.datasets]
    stream = SampleStream(
        datasets, batch_size=config.data.batch_size, seed=config.seed, rank=rank, world_size=world_size, prefetch=0
    )
    make_views = ViewFactory(config, torch.device("cpu"))
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for step, batch in zip(range(1, steps + 1), stream, strict=False):
        views = make_views(batch)
        doubles = tuple(images.double() for images in views.images)
        views = Views(doubles, views.metadata, views.rows, views.spacing_mm)
        optimizer.zero_grad()
        module(views)[0].backward()
        for parameter in parameters:
            if parameter.grad is None:  # What only volumes use gets none from planes, on any rank.
                continue
            if world_size > 1:
                torch.distributed.all_reduce(parameter.grad)
            parameter.grad /= world_size
        torch.nn.utils.clip_grad_norm_(parameters, config.optimizer.clip_norm)
        optimizer.step()
        module.after_step(step / steps)
    return {name: value.clone() for name, value in module.state_dict().items()}
