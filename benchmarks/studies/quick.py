"""Training a network within this process by the parts of the engine, for studies of many short runs; no checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data_shards.stream.batch import Batch
from data_shards.support.documents import parse
from data_shards.vocabulary import Modality, Organ, Task
from pretrain.config import PretrainConfig
from pretrain.module import PretrainModule
from pretrain.optim import create_optimizer, create_schedule


def configured(sections: dict[str, Any]) -> PretrainConfig:
    """A document without a folder, whose images are handed in; the sections may name their own data."""
    return parse(PretrainConfig, {"out": Path("none"), "data": {"datasets": [{"path": "none"}]}, **sections}, "study")


def optimise(module: PretrainModule, config: PretrainConfig, steps: int, loss_at: Callable[[int], Tensor]) -> None:
    """So many steps by the optimizer and the schedule of the document.

    Args:
        module: is trained.
        config: of the run.
        steps: at the last of them the schedule ends.
        loss_at: makes the loss of step 0, 1, ...
    """
    optimizer = create_optimizer(module, config.optimizer, 0)
    schedule = create_schedule(optimizer, config.schedule, steps)
    module.train()
    for step in range(steps):
        schedule.step_update(step + 1)
        loss = loss_at(step)
        optimizer.zero_grad()
        loss.backward()
        if config.optimizer.clip_norm:
            torch.nn.utils.clip_grad_norm_(module.parameters(), config.optimizer.clip_norm)
        optimizer.step()
        module.after_step((step + 1) / steps)
    module.eval()


def batch_of(images: Tensor, sample_B: np.ndarray, showing: int, organ: Organ, modality: Modality) -> Batch:
    """A batch of images whose spacing is not told.

    Args:
        images: uint8, ``B,C,*size``.
        sample_B: number of each.
        showing: another one gives other views of the same samples.
        organ: shown by all.
        modality: of all.
    """
    count = len(images)
    return Batch(
        images=images,
        label_BL=torch.zeros(count, 0, dtype=torch.int64),
        sample_B=torch.from_numpy(np.asarray(sample_B, dtype=np.int64)),
        organ_B=torch.full((count,), int(organ)),
        modality_B=torch.full((count,), int(modality)),
        task_B=torch.full((count,), int(Task.self_supervised)),
        spacing_mm_BA=torch.full((count, images.ndim - 2), torch.nan),
        dataset=0,
        name="study",
        dataset_epoch=showing,
        epoch=0,
        batch=0,
        rows=(count,),
    )
