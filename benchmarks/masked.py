"""A step of masked reconstruction against a two-view step of SimCLR: the same images and network, on the CPU."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch

from benchmarks.table import Table
from pretrain.config import ModelConfig
from pretrain.metadata import Metadata
from pretrain.module import PretrainModule, create_backbone
from pretrain.objectives.views import View, Views

REPEATS = 5
SETTINGS: dict[str, tuple[tuple[int, ...], int]] = {"224 x 224": ((3, 224, 224), 8), "64^3": ((1, 64, 64, 64), 4)}
OBJECTIVES: dict[str, dict[str, Any]] = {"simclr": {}, "masked": {"share": 0.75}}
MOST = 0.7
"""What a masked step may take of the other."""


def views_of(shape: tuple[int, ...], count: int) -> Views:
    """Images of noise, as two whole views and a clean one."""
    generator = torch.Generator().manual_seed(0)
    images = [torch.rand(count, *shape, generator=generator) * 2 - 1 for _ in range(2)]
    metadata = Metadata.uniform(count)
    keys_B = torch.arange(count)
    clean = View(images[0], metadata, None, keys_B)
    return Views(tuple(images), (metadata,) * 2, (count,), (None, None), keys=(keys_B,) * 2, clean=clean)


def step_s(module: PretrainModule, views: Views) -> float:
    """Seconds of a forward and backward pass; nothing is taken over from an earlier one."""
    fresh = Views(views.images, views.metadata, views.rows, views.spacing_mm, keys=views.keys, clean=views.clean)
    module.zero_grad()
    began = time.perf_counter()
    module(fresh)[0].backward()
    return time.perf_counter() - began


def run() -> Table:
    """Medians of steps that alternate, so that drift hits both alike."""
    rows = []
    for title, (shape, count) in SETTINGS.items():
        torch.manual_seed(0)
        modules = {
            name: PretrainModule(create_backbone(ModelConfig()), {name: parameters})
            for name, parameters in OBJECTIVES.items()
        }
        views = views_of(shape, count)
        taken: dict[str, list[float]] = {name: [] for name in modules}
        for _ in range(1 + REPEATS):
            for name, module in modules.items():
                taken[name].append(step_s(module, views))
        median = {name: statistics.median(times[1:]) for name, times in taken.items()}
        rows += [
            (title, str(count), name, f"{seconds * 1e3:,.0f}", f"{seconds / median['simclr']:.2f}")
            for name, seconds in median.items()
        ]
    return Table(
        title="A step of masked reconstruction",
        command="python -m benchmarks masked",
        columns=("images", "batch", "objective", "step, ms", "of simclr's"),
        rows=tuple(rows),
        remarks=f"medformer_nano, float32, {torch.get_num_threads()} threads; forward and backward pass, without the "
        f"making of views, of which masked reconstruction needs one and SimCLR two. Three quarters of the patches of "
        f"2 tokens a side are hidden before the stem. Medians of {REPEATS} steps in turn; at most {MOST} is asked for.",
    )
