"""A network and images that are small enough to train in a test."""

from __future__ import annotations

import numpy as np
import timm
import torch

from data_shards.vocabulary import Modality, Organ, Task
from finetune.labelled import LabelledImages
from pretrain.backbone import Medformer

TINY = {"embed_dim": 32, "depth": 1, "num_heads": 2, "latents": 4, "latents_per_entry": 1}


def tiny_backbone(seed: int = 0) -> Medformer:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return timm.create_model("medformer_nano", **TINY)


def blobs(count: int, classes: int = 2, *, seed: int = 0, side: int = 16, channels: int = 1) -> LabelledImages:
    """Noise with a bright square whose place tells the class: top left, bottom right, top right, ..."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    images = generator.integers(0, 90, size=(count, channels, side, side))
    half = side // 2
    for image, label in zip(images, labels, strict=True):
        top, left = ((0, 0), (half, half), (0, half), (half, 0))[label]
        image[:, top + 1 : top + half - 1, left + 1 : left + half - 1] += 120
    return LabelledImages(
        name="blobs",
        images=images.astype(np.uint8),
        labels=labels[:, None].astype(np.int64),
        task=Task.binary if classes == 2 else Task.multiclass,
        classes={index: f"place {index}" for index in range(classes)},
        keys=np.array([f"blob-{index:04d}" for index in range(count)]),
        organ=Organ.chest,
        modality=Modality.xray,
    )
