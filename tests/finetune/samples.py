"""A network and cases that are small enough to train in a test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import timm
import torch

from data_shards.sample import Image
from data_shards.vocabulary import Modality, Organ, Task
from finetune.cases import Cases
from finetune.images import ReadPictures, Study
from pretrain.backbone import Medformer

TINY: dict[str, Any] = {"embed_dim": 32, "depth": 1, "num_heads": 2, "latents": 4, "latents_per_entry": 1}


def tiny_backbone(seed: int = 0, **kwargs: Any) -> Medformer:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return timm.create_model("medformer_nano", **{**TINY, **kwargs})


def seeing_backbone() -> Medformer:
    """A network whose tokens, though untrained, tell where a noisy image is bright: its convolutions overlap."""
    return tiny_backbone(stem="conv")


def blobs(count: int, classes: int = 2, *, seed: int = 0, side: int = 16, channels: int = 1) -> Cases:
    """Noise with a bright square whose place tells the class: top left, bottom right, top right, ..."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    images = generator.integers(0, 90, size=(count, channels, side, side))
    half = side // 2
    for image, label in zip(images, labels, strict=True):
        top, left = ((0, 0), (half, half), (0, half), (half, 0))[label]
        image[:, top + 1 : top + half - 1, left + 1 : left + half - 1] += 120
    return Cases(
        name="blobs",
        images=images.astype(np.uint8),
        labels=labels[:, None].astype(np.int64),
        task=Task.binary if classes == 2 else Task.multiclass,
        classes={index: f"place {index}" for index in range(classes)},
        keys=np.array([f"blob-{index:04d}" for index in range(count)]),
        organ=Organ.chest,
        modality=Modality.xray,
    )


def solid_blobs(count: int, *, seed: int = 0, channels: int = 1, depth: int = 6) -> Cases:
    """Volumes whose slices between the first and the last show a bright square; its place tells the class."""
    planes = blobs(count, seed=seed)
    volumes = np.repeat(planes.images[:, :, None].repeat(channels, axis=1), depth, axis=2)
    volumes[:, :, [0, -1]] = np.random.default_rng(seed).integers(0, 90, volumes[:, :, :2].shape)
    return replace(planes, images=volumes)


TARGETS = ("binary", "multiclass", "ordinal", "multilabel", "regression")


def of_target(name: str, count: int = 24, *, seed: int = 0, side: int = 16) -> Cases:
    """Blobs with labels of a target."""
    if name == "binary":
        return blobs(count, seed=seed, side=side)
    places = blobs(count, 4 if name == "multilabel" else 3, seed=seed, side=side)
    place = places.known_labels[:, 0]
    if name == "multilabel":
        labels = np.stack([place % 2, place // 2], axis=1)
        return replace(places, labels=labels, task=Task.multilabel, classes={0: "right", 1: "odd"})
    if name == "regression":
        noise = np.random.default_rng(seed).normal(scale=0.1, size=count)
        labels = (100 + 5 * place + noise)[:, None]
        return replace(places, labels=labels, task=Task.regression, classes={0: "ml"})
    return replace(places, task=Task[name])


class Reader:
    """Studies that are read when they are asked for; counts how often each is.

    Args:
        studies: themselves.
    """

    def __init__(self, studies: Sequence[Study]) -> None:
        self.studies = list(studies)
        self.read = [0] * len(self.studies)

    def __call__(self, position: int) -> Study:
        self.read[position] += 1
        return self.studies[position]

    def cases(self, like: Cases, bags: np.ndarray | None = None) -> Cases:
        """Cases of these studies with the labels of others."""
        pictures = ReadPictures(len(self.studies), self)
        return replace(like, images=pictures, spacing_mm=None, rows=None, bags=bags)


def studies_of(cases: Cases) -> list[Study]:
    """The studies of cases that have one each."""
    return [cases.pictures.study(int(row)) for row in cases.rows]


def plane(pixels: np.ndarray, modality: Modality = Modality.xray, spacing_mm: tuple[float, ...] = ()) -> Image:
    return Image(pixels.astype(np.uint8), modality, spacing_mm)
