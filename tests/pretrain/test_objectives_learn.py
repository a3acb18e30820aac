"""Every family of objectives learns on a small set: its loss falls and the embeddings stay apart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from pretrain.backbone.modes import evaluating
from pretrain.health import embedding_spread
from pretrain.module import PretrainModule, create_backbone
from pretrain.objectives import Views
from pretrain.view_factory import ViewFactory
from tests.pretrain.objective_views import batch_of, document_of

COUNT, STEPS, RATE = 32, 100, 2e-3
SLOWER = {"dino": (200, 1e-3)}
"""A teacher that follows at .9 lets such a network collapse from some initial weights; at .96 it needs more steps."""
NETWORK = {"embed_dim": 32, "depth": 1, "num_heads": 2, "latents": 8, "latents_per_entry": 1}
VIEWS = {"rotation": None, "crop": {"scale": [0.6, 1.0]}, "flip": None}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks as small as these gain nothing by threads, which wait for each other where the cores are taken."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def spots(axes: int) -> torch.Tensor:
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


def learn(
    objectives: dict[str, Any], axes: int = 2, steps: int = STEPS, rate: float = RATE
) -> tuple[list[dict[str, float]], float]:
    torch.manual_seed(0)
    config = document_of(objectives, model={"kwargs": NETWORK}, views=VIEWS)
    module = PretrainModule(create_backbone(config.model), config.objectives)
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=rate)
    make_views = ViewFactory(config, torch.device("cpu"))
    images, lines = spots(axes), []
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
    return lines, spread_of(module, views)


def spread_of(module: PretrainModule, views: Views) -> float:
    with evaluating(module), torch.no_grad():
        return embedding_spread([views.features(module.backbone, views.first).embedding_BD])["embedding_std"]


def mean(lines: list[dict[str, float]], name: str) -> float:
    return sum(line[name] for line in lines) / len(lines)


APART = 0.01
"""What restoring leaves: it needs embeddings that differ, and has no reason to bring them to all sides."""
SMALL = {"hidden": 32, "out": 16}


@pytest.mark.parametrize(
    ("name", "parameters", "watched", "falls_to", "spreads"),
    [
        ("swav", {**SMALL, "prototypes": 16}, "loss", 0.7, 0.1),
        ("dino", {**SMALL, "prototypes": 32, "tau": 0.96}, "loss", 0.95, 0.1),
        ("dino", {**SMALL, "prototypes": 32, "tau": 0.96, "ibot": 1.0, "cells": 1}, "token", 0.7, 0.1),
        ("masked", {"cells": 1}, "pixels", 0.5, APART),
        ("masked", {"cells": 1}, "thumbnail", 0.8, APART),
        ("restore", {"hidden": 8, "task": "denoise"}, "pixels", 0.3, APART),
        ("restore", {"hidden": 8, "task": "super_resolution"}, "thumbnail", 0.6, APART),
        ("restore", {"hidden": 8, "task": "artefacts"}, "pixels", 0.3, APART),
        ("restore", {"hidden": 8, "task": "colour"}, "thumbnail", 0.6, APART),
        ("rotation", {}, "loss", 0.5, 0.1),
        ("jigsaw", {}, "loss", 0.8, 0.1),
    ],
)
@pytest.mark.slow
def test_it_learns_without_collapse(
    name: str, parameters: dict[str, Any], watched: str, falls_to: float, spreads: float
) -> None:
    steps, rate = SLOWER.get(name, (STEPS, RATE))
    lines, after = learn({name: parameters}, steps=steps, rate=rate)
    first, last = mean(lines[:3], f"{name}/{watched}"), mean(lines[-10:], f"{name}/{watched}")
    assert last < falls_to * first, f"{first} to {last}"
    assert after > spreads, f"a spread of {after}"


def test_noise_is_taken_away_and_not_given_back() -> None:
    lines, _ = learn({"restore": {"hidden": 8, "task": "denoise"}})
    assert mean(lines[-10:], "restore/pixels") < 0.5 * mean(lines[-10:], "restore/damaged")


def test_volumes_are_learnt_from_hidden_patches() -> None:
    lines, _ = learn({"masked": {"cells": 1}}, axes=3, steps=30)
    assert mean(lines[-5:], "masked/pixels") < 0.7 * lines[0]["masked/pixels"]
