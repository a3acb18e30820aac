"""Training a network within this process by the parts of the engine, for studies of many short runs; no checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data_shards.stream.batch import Batch
from data_shards.support.documents import parse
from data_shards.vocabulary import Modality, Organ, Task
from finetune.cases import Cases
from pretrain.config import PretrainConfig
from pretrain.module import PretrainModule
from pretrain.optim import create_optimizer, create_schedule
from pretrain.view_factory import ViewFactory
from pretrain.views.config import ViewConfig


def configured(sections: dict[str, Any]) -> PretrainConfig:
    """A document without a folder, whose images are handed in; the sections may name their own data."""
    return parse(PretrainConfig, {"out": Path("none"), "data": {"datasets": [{"path": "none"}]}, **sections}, "study")


def train_on(
    modules: Sequence[PretrainModule],
    config: PretrainConfig,
    seen: Sequence[Cases],
    rows: int,
    steps: int,
    taken: list[float] | None = None,
    augmented: Sequence[ViewConfig] | None = None,
) -> list[float]:
    """So many steps on several sets; each step shows one of them, drawn by the root of its size.

    All that is trained with one seed sees the same images and views in the same order, here or in another call.

    Args:
        modules: are trained beside each other, on views that are made once.
        config: of the run; its seed is that of the draws and of the views.
        seen: images in memory.
        rows: images of a step; all of a set that has fewer.
        steps: at the last of them the schedule ends.
        taken: receives the CPU time of each step but the last, in seconds.
        augmented: how the images of each set are; as the document says when left out, whatever its policy forbids.

    Returns:
        The CPU time that the steps of each module took without the views, in seconds.
    """
    make_views = ViewFactory(config, torch.device("cpu"), augmented)
    shares = np.sqrt([len(cases) for cases in seen])
    trained = [Steps(module, config, steps) for module in modules]
    spent_s = [0.0] * len(modules)
    last_s = time.process_time()
    for step in range(steps):
        if taken is not None and step:
            taken.append(time.process_time() - last_s)
        last_s = time.process_time()
        drawing = np.random.default_rng([config.seed, step])
        number = int(drawing.choice(len(seen), p=shares / shares.sum()))
        cases = seen[number]
        rows_B = drawing.permutation(len(cases))[:rows]
        assert isinstance(cases.images, np.ndarray)
        batch = batch_of(torch.from_numpy(cases.images[rows_B]), rows_B, step, cases.organ, cases.modality)
        views = make_views(batch if augmented is None else replace(batch, dataset=number))
        for place, each in enumerate(trained):
            started_s = time.process_time()
            each.take(each.module(views, step / steps)[0])
            spent_s[place] += time.process_time() - started_s
    for each in trained:
        each.module.eval()
    return spent_s


def optimise(module: PretrainModule, config: PretrainConfig, steps: int, loss_at: Callable[[int], Tensor]) -> None:
    """So many steps by the optimizer and the schedule of the document.

    Args:
        module: is trained.
        config: of the run.
        steps: at the last of them the schedule ends.
        loss_at: makes the loss of step 0, 1, ...
    """
    trained = Steps(module, config, steps)
    for step in range(steps):
        trained.take(loss_at(step))
    module.eval()


class Steps:
    """The steps of a training by the optimizer and the schedule of the document.

    Args:
        module: is trained; its mode becomes that of training.
        config: of the run.
        steps: at the last of them the schedule ends.
    """

    def __init__(self, module: PretrainModule, config: PretrainConfig, steps: int) -> None:
        self.module = module.train()
        self._clip_norm = config.optimizer.clip_norm
        self._optimizer = create_optimizer(module, config.optimizer, 0)
        self._schedule = create_schedule(self._optimizer, config.schedule, steps)
        self._steps, self._done = steps, 0

    def take(self, loss: Tensor) -> None:
        """One step down the gradient of a loss of the module."""
        self._done += 1
        self._schedule.step_update(self._done)
        self._optimizer.zero_grad()
        loss.backward()
        if self._clip_norm:
            torch.nn.utils.clip_grad_norm_(self.module.parameters(), self._clip_norm)
        self._optimizer.step()
        self.module.after_step(self._done / self._steps)


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
