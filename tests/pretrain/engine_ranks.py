"""What spawned ranks do in the tests of the engine; importable by them."""

from __future__ import annotations

import os
import signal
from enum import IntEnum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data_shards.reading.reader import ShardedDataset
from data_shards.stream.sample_stream import SampleStream
from data_shards.support.errors import CheckpointError
from data_shards.vocabulary import Organ
from pretrain.backbone.latents import COLLECTIONS
from pretrain.config import PretrainConfig
from pretrain.engine import run
from pretrain.module import PretrainModule, create_backbone
from pretrain.optim import create_optimizer
from pretrain.runtime import TorchRuntime
from pretrain.view_factory import ViewFactory
from tests.pretrain.objective_views import doubled
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
        views = doubled(views)
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


def resumed_under_zero(rank: int, world_size: int, shards: Path, out: Path) -> str:
    """What a resumption under ZeRO 1 says once the vocabulary has grown."""
    config = PretrainConfig.model_validate(zero_document(shards, out, 1))
    assert run(config, GroupRuntime(stop_after=2)) is None
    COLLECTIONS["organ"] = IntEnum("Organ", {**Organ.__members__, "later": len(Organ)})  # This process ends here.
    try:
        run(config, GroupRuntime(), resume=True)
    except CheckpointError as error:
        return str(error)
    return "nothing"


class SignalledRuntime(TorchRuntime):
    """The plain surroundings, in which this process gets a real SIGTERM in a given step.

    Args:
        step: in which it comes; None for never.
        before: whether it comes before this rank casts its vote in that step, or right after.
    """

    def __init__(self, step: int | None, before: bool) -> None:
        super().__init__()
        self.steps = 0
        self.saved: list[int] = []
        self._step, self._before = step, before

    def stop_requested(self) -> bool:
        self.steps += 1
        if self.steps == self._step and self._before:
            os.kill(os.getpid(), signal.SIGTERM)
        answer = super().stop_requested()
        if self.steps == self._step and not self._before:
            os.kill(os.getpid(), signal.SIGTERM)
        return answer

    def checkpoint_saved(self, folder: Path, step: int) -> None:
        self.saved.append(step)


SIGNAL_STEP = 5


def stopped_by_signal(rank: int, world_size: int, shards: Path, folder: Path) -> list[tuple[int, list[int]]]:
    """Steps that were begun, and those whose checkpoints were written, when rank 1 gets SIGTERM at two moments."""
    found = []
    for before in (True, False):
        content = document(
            shards, folder / f"before-{before}", log_every_steps=10**6, checkpoint={"every_steps": 10**6}
        )
        runtime = SignalledRuntime(SIGNAL_STEP if rank == 1 else None, before)
        assert run(PretrainConfig.model_validate(content), runtime) is None
        found.append((runtime.steps, runtime.saved))
    return found
