"""Pretraining of one arm: Barlow Twins on slices, and a second term of the same size on more slices or on made ones.

All arms have the same network, projectors, steps, and slices of the first term in the same order; an arm says what the
images of the second term are: further slices, mixtures of two (mixup), or what the objective ``brainfuse`` makes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from benchmarks.studies.brains import Brains
from benchmarks.studies.quick import batch_of, configured, optimise
from benchmarks.studies.runs import VIEWS
from data_shards.vocabulary import Modality, Organ, Task
from pretrain.backbone import Medformer, normalise
from pretrain.metadata import Metadata
from pretrain.module import PretrainModule, create_backbone
from pretrain.objectives.base import create_objective
from pretrain.objectives.views import Source, Views
from pretrain.view_factory import ViewFactory

STEPS, ROWS, LEARNING_RATE = 150, 32, 0.002
PARENTS = 2
MODEL: dict[str, Any] = {
    "name": "medformer_nano",
    "kwargs": {"stem": "conv", "stride": 4, "stem_width": 8, "embed_dim": 64, "num_heads": 2, "depth": 2},
}  # fmt: skip
TWINS = {"hidden": 256, "out": 256}
CONSISTENCY = {"squared": 3000.0, "relative": 3.0}
"""Weight of the consistency by distance, beside Barlow Twins, whose loss is near 100; of 3, 30 and 300 the relative one
is 3 by the validation subjects of the first seed."""
MIXUP = 0.4
"""Both parameters of the Beta distribution of the shares (Zhang et al., ICLR 2018)."""
_SECOND = 1 << 20
"""Added to the number of a step for the views of the second term."""


@dataclass(frozen=True)
class Arm:
    """What the second term is.

    Attributes:
        name: in the table.
        images: of which images; None for a network that is not pretrained.
        joint: whether two views of them are embedded alike.
        consistent: by which distance their embedding is drawn to the mean of those of their parents, if it is.
    """

    name: str
    images: Literal["slices", "mixup", "mean", "generator"] | None
    joint: bool = True
    consistent: Literal["squared", "relative"] | None = None


ARMS = (
    Arm("NT", None),
    Arm("BT", "slices"),
    Arm("BT + mixup", "mixup"),
    Arm("BT + Raw", "mean"),
    Arm("BT + Fuse", "generator"),
    Arm("BT + Raw + CR", "mean", consistent="squared"),
    Arm("BT + Fuse + CR", "generator", consistent="squared"),
    Arm("BT + CR alone", "generator", joint=False, consistent="squared"),
    Arm("BT + Raw + CRr", "mean", consistent="relative"),
    Arm("BT + Fuse + CRr", "generator", consistent="relative"),
    Arm("BT + CRr alone", "generator", joint=False, consistent="relative"),
)


def fresh(seed: int) -> Medformer:
    """The network with new weights; all arms of a seed begin with the same."""
    torch.manual_seed(seed)
    return create_backbone(configured({"model": MODEL, "objectives": {"barlow_twins": TWINS}}).model).eval()


def pretrained(brains: Brains, arm: Arm, seed: int, generator: Path, say: Callable[[str], None]) -> Medformer:
    """The network of an arm.

    Args:
        brains: of which the training subjects are seen.
        arm: not the one without pretraining.
        seed: of weights, draws and views.
        generator: its bundle.
        say: is told the parts of the loss now and then.
    """
    config = configured({
        "seed": seed, "model": MODEL, "views": VIEWS, "objectives": {"barlow_twins": TWINS},
        "optimizer": {"name": "adamw", "lr": LEARNING_RATE, "weight_decay": 0.05},
    })  # fmt: skip
    backbone = fresh(seed)
    module = PretrainModule(backbone, config.objectives)
    module.objectives["second"] = create_objective(*_second(arm, generator), backbone)
    make_views = ViewFactory(config, torch.device("cpu"))
    volumes = torch.from_numpy(brains.parts["train"].volumes)

    def loss_at(step: int) -> Tensor:
        draw = np.random.default_rng([seed, step])
        rows_2B = draw.permutation(len(volumes))[: 2 * ROWS].reshape(2, ROWS)
        heights_3B = draw.integers(volumes.shape[2], size=(3, ROWS))
        first = _views(make_views, slices(volumes, rows_2B[0], heights_3B[0]), rows_2B[0], step)
        more = slices(volumes, rows_2B[1], heights_3B[1])
        if arm.images == "mixup":
            share_B111 = torch.from_numpy(draw.beta(MIXUP, MIXUP, (ROWS, 1, 1, 1)))
            partners = slices(volumes, np.roll(rows_2B[1], 1), heights_3B[2])
            more = (share_B111 * more + (1 - share_B111) * partners).round().to(torch.uint8)
        second = _views(make_views, more, rows_2B[1], _SECOND + step)
        if arm.images in ("mean", "generator"):
            second = replace(second, source=_source(volumes, rows_2B[1]))
        progress = step / STEPS
        both = zip(module.objectives.items(), (first, second), strict=True)
        parts = {name: objective(backbone, views, progress) for (name, objective), views in both}
        if step % 50 == 0 or step == STEPS - 1:
            flat = {f"{name}/{part}": value for name, each in parts.items() for part, value in each.items()}
            said = {name: round(float(value.detach()), 3) for name, value in flat.items()}
            say(f"{brains.name} {arm.name} {seed} step {step} {said}")
        return parts["barlow_twins"]["loss"] + parts["second"]["loss"]

    optimise(module, config, STEPS, loss_at)
    return backbone


def slices(volumes: Tensor, rows_B: np.ndarray, heights_B: np.ndarray) -> Tensor:
    """Of volumes ``N,C,S,H,W`` one slice each, ``B,C,H,W``."""
    return volumes[torch.from_numpy(rows_B), :, torch.from_numpy(heights_B)]


def _second(arm: Arm, generator: Path) -> tuple[str, dict[str, Any]]:
    if arm.images in ("slices", "mixup"):
        return "barlow_twins", TWINS
    return "brainfuse", {
        **TWINS,
        "generator": generator if arm.images == "generator" else None,
        "parents": PARENTS,
        "axis": 0,
        "joint": "barlow_twins" if arm.joint else "none",
        "consistency": CONSISTENCY[arm.consistent] if arm.consistent else 0.0,
        "distance": arm.consistent or "relative",
        "views": VIEWS,
    }


def _views(make_views: ViewFactory, images: Tensor, rows_B: np.ndarray, showing: int) -> Views:
    return make_views(batch_of(images, rows_B, showing, Organ.brain, Modality.mri))


def _source(volumes: Tensor, rows_B: np.ndarray) -> Source:
    """Whole volumes, of which the objective takes the parents at one height; each is a subject of its own."""
    numbers_B = torch.from_numpy(rows_B)
    metadata = Metadata.uniform(len(rows_B), Organ.brain, Modality.mri, Task.self_supervised)
    return Source(normalise(volumes[numbers_B]), numbers_B, 0, numbers_B, metadata, None)


@torch.no_grad()
def embedded(backbone: Medformer, volumes: np.ndarray) -> np.ndarray:
    """The embedding of every slice, ``N,S,D``."""
    count, depth = len(volumes), volumes.shape[2]
    pixels = normalise(torch.from_numpy(volumes).transpose(1, 2).flatten(0, 1))
    known = Metadata.uniform(depth, Organ.brain, Modality.mri, Task.self_supervised)
    parts = [backbone.features(each, known).embedding_BD for each in pixels.split(depth)]
    return torch.cat(parts).unflatten(0, (count, depth)).numpy()
