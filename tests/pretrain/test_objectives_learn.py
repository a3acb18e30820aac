"""Every family of objectives learns on a small set: its loss falls and the embeddings stay apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pretrain.health import embedding_spread
from pretrain.module import PretrainModule, create_backbone
from pretrain.view_factory import ViewFactory
from tests.pretrain.objective_views import batch_of, document_of

COUNT, STEPS, RATE = 32, 100, 2e-3
NETWORK = {"embed_dim": 32, "depth": 1, "num_heads": 2, "latents": 8, "latents_per_entry": 1}
VIEWS = {"rotation_deg": 0.0, "crop_scale_min": 0.6, "flip_horizontal": 0.0}


def gratings(axes: int) -> torch.Tensor:
    """Colour images: a bright spot of random place and colour on a ramp that is brighter at the top left."""
    generator = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.linspace(0, 1, 16)] * axes, indexing="ij"))
    ramp = grid.mean(axis=0)
    images = []
    for _ in range(COUNT):
        centre = generator.uniform(0.2, 0.8, (axes, *[1] * axes))
        spot = np.exp(-((grid - centre) ** 2).sum(axis=0) / 0.02)
        colour = generator.uniform(0.2, 1, (3, *[1] * axes))
        images.append(140 * (1 - ramp) ** 2 + 110 * colour * spot)
    return torch.from_numpy(np.stack(images).clip(0, 255).astype(np.uint8))


def learn(objectives: dict[str, Any], axes: int = 2, steps: int = STEPS) -> tuple[list[dict[str, float]], float]:
    torch.manual_seed(0)
    config = document_of(objectives, model={"kwargs": NETWORK}, views=VIEWS)
    module = PretrainModule(create_backbone(config.model), config.objectives)
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=RATE)
    make_views = ViewFactory(config, torch.device("cpu"))
    images, lines = gratings(axes), []
    for step in range(steps):
        batch = batch_of(images, slice(0, COUNT), (COUNT,))
        object.__setattr__(batch, "dataset_epoch", step)  # Other pixels in every step.
        views = make_views(batch)
        loss, parts = module(views, step / steps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        module.after_step((step + 1) / steps)
        lines.append({name: float(value) for name, value in parts.items()})
    module.eval()
    with torch.no_grad():
        spread = embedding_spread([views.features(module.backbone, views.first).embedding_BD])
    return lines, spread["embedding_std"]


def mean(lines: list[dict[str, float]], name: str) -> float:
    return sum(line[name] for line in lines) / len(lines)


SMALL = {"hidden": 32, "out": 16}


@pytest.mark.parametrize(
    ("name", "parameters", "falls_to"),
    [
        ("swav", {**SMALL, "prototypes": 16}, 0.9),
        ("dino", {**SMALL, "prototypes": 32, "tau": 0.9}, 0.9),
        ("dino", {**SMALL, "prototypes": 32, "tau": 0.9, "ibot": 1.0, "cells": 1}, 0.9),
        ("masked", {"cells": 1}, 0.8),
        ("restore", {"hidden": 8, "task": "denoise"}, 0.6),
        ("restore", {"hidden": 8, "task": "super_resolution"}, 0.6),
        ("restore", {"hidden": 8, "task": "artefacts"}, 0.6),
        ("restore", {"hidden": 8, "task": "colour"}, 0.6),
        ("rotation", {}, 0.6),
        ("jigsaw", {}, 0.8),
    ],
)
def test_it_learns_without_collapse(name: str, parameters: dict[str, Any], falls_to: float) -> None:
    lines, spread = learn({name: parameters})
    print(name, lines[0], lines[-1], spread)
    first, last = mean(lines[:5], f"{name}/loss"), mean(lines[-10:], f"{name}/loss")
    assert last < falls_to * first, f"{first} to {last}"
    assert spread > 0.05
