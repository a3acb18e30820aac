"""Views of drifting images for the tests of objectives, cut for ranks; importable by spawned ranks."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data_shards.stream.batch import Batch
from pretrain.config import PretrainConfig
from pretrain.objectives import Views
from pretrain.objectives.views import View
from pretrain.view_factory import ViewFactory

BACKBONE: dict[str, Any] = {"embed_dim": 8, "depth": 1, "num_heads": 2, "latents": 2, "latents_per_entry": 1}


def batch_of(images: Tensor, own: slice, rows: tuple[int, ...]) -> Batch:
    """Own rows of a global batch of images."""
    count = len(images[own])
    ids_B = torch.ones(count, dtype=torch.int64)
    axes = images.ndim - 2
    return Batch(
        images=images[own],
        label_BL=torch.zeros(count, 0, dtype=torch.int64),
        sample_B=torch.arange(len(images))[own],
        organ_B=ids_B,
        modality_B=ids_B,
        task_B=ids_B,
        spacing_mm_BA=torch.full((count, axes), torch.nan),
        dataset=0,
        name="drifting",
        dataset_epoch=0,
        epoch=0,
        batch=0,
        rows=rows,
    )


def drifting_images(total: int, shape: tuple[int, ...]) -> Tensor:
    """Images whose mean and contrast drift along the batch, so that ranks see different distributions."""
    generator = np.random.default_rng(3)
    drift = np.linspace(0, 1, total).reshape(-1, *[1] * len(shape))
    pixels = 40 + 150 * drift + (10 + 50 * drift) * generator.standard_normal((total, *shape))
    return torch.from_numpy(pixels.clip(0, 255).astype(np.uint8))


def document_of(objectives: dict[str, Any], micro_batch: int | None = None, **changes: Any) -> PretrainConfig:
    """A configuration with these objectives, whose data are made by the tests themselves."""
    content = {
        "out": Path("none"),
        "data": {"datasets": [{"path": "none"}], "micro_batch_size": micro_batch},
        "model": {"kwargs": BACKBONE},
        "objectives": objectives,
        **changes,
    }
    return PretrainConfig.model_validate(content)


def views_of(config: PretrainConfig, images: Tensor, rank: int = 0, world_size: int = 1) -> Views:
    """Views of the rows of a rank, in double precision."""
    bounds = [len(images) * part // world_size for part in range(world_size + 1)]
    rows = tuple(last - first for first, last in pairwise(bounds))
    batch = batch_of(images, slice(bounds[rank], bounds[rank + 1]), rows)
    return doubled(ViewFactory(config, torch.device("cpu"))(batch))


def doubled(views: Views) -> Views:
    """The same views in double precision."""

    def twice(view: View) -> View:
        return replace(view, images=view.images.double())

    return Views(
        tuple(images.double() for images in views.images),
        views.metadata,
        views.rows,
        views.spacing_mm,
        keys=views.keys,
        small={kind: tuple(map(twice, each)) for kind, each in views.small.items()},
        clean=None if views.clean is None else twice(views.clean),
        source=views.source,
        micro_batch=views.micro_batch,
    )
