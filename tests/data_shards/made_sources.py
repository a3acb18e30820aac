"""Small sources made in memory, for the tests of the writer, reader and stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from data_shards.card import DatasetCard
from data_shards.sample import Image, Sample
from data_shards.sources.base import Source
from data_shards.sources.phantoms import Phantoms
from data_shards.vocabulary import Modality, Organ, Task


def card(name: str = "toy") -> DatasetCard:
    return DatasetCard(
        name=name,
        title="Toy images",
        organ="brain",
        modality="mri",
        dimensionality="planar",
        task="multiclass",
        classes={0: "zero", 1: "one", 2: "two"},
        licence="CC0",
        homepage="",
        source_version="1",
        source_checksum={},
        split_rule="as given",
    )


@dataclass
class Listed(Source):
    """A source that holds what it was given."""

    duplicates = "allow"

    samples: Sequence[Sample]
    card: DatasetCard

    def __len__(self) -> int:
        return len(self.samples)

    def sample(self, position: int) -> Sample:
        return self.samples[position]


def toy_sample(key: str, *, split: str = "train", subject: str = "", label: int = 0, pixels: np.ndarray) -> Sample:
    return Sample(
        key=key,
        images={"image": Image(pixels, Modality.mri, (0.7,) * (pixels.ndim - 1))},
        organ=Organ.brain,
        subject=subject or f"subject-{key}",
        split=split,
        label=np.array([label]),
        task=Task.multiclass,
    )


def toy_source(
    counts: dict[str, int],
    *,
    name: str = "toy",
    shape: tuple[int, ...] = (1, 4, 5),
    dtype: str = "uint8",
) -> Listed:
    """``counts[split]`` random images per split, label ``position % 3``, splits interleaved."""
    random = np.random.default_rng(0)
    samples = []
    for position in range(max(counts.values())):
        for split in counts:
            if position < counts[split]:
                pixels = random.integers(0, 250, shape).astype(dtype)
                samples.append(toy_sample(f"{split}-{position:05d}", split=split, label=position % 3, pixels=pixels))
    return Listed(samples, card(name))


WINDOWS_HU = ((-1000.0, 400.0), (-160.0, 240.0), (-200.0, 1200.0))
"""Lung, soft tissue and bone."""


class Coloured(Source):
    """Slices of CT phantoms as red, green and blue: one window each. uint8 of shape 3,H,W, of unknown spacing."""

    def __init__(self, *, subjects: int, size: int = 28) -> None:
        self._slices = Phantoms(
            "phantom-abdomen-ct-2d", size=size, subjects=subjects, images_per_subject=1, dtype="native"
        )
        self.card = self._slices.card.model_copy(update={"name": "colour", "title": "CT phantoms in three windows"})

    def __len__(self) -> int:
        return len(self._slices)

    def sample(self, position: int) -> Sample:
        sample = self._slices.sample(position)
        shares = [(sample.image.pixels[0] - low) / (high - low) for low, high in WINDOWS_HU]
        pixels_3HW = np.rint(np.clip(np.stack(shares), 0, 1) * 255).astype(np.uint8)
        return replace(sample, images={"image": replace(sample.image, pixels=pixels_3HW, spacing_mm=())})
