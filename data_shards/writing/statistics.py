"""Counts and intensities of one split, gathered in parts and merged."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from data_shards.format.manifest import ImageLayout
from data_shards.sample import Image, Sample
from data_shards.vocabulary import Task

# Pixels turned into float64 at a time: a few megabytes beside an image of any size.
_BLOCK = 1 << 18

# Labels of these are classes, also where they are written as 1.0.
_CLASSES = (Task.binary, Task.multiclass, Task.ordinal, Task.multilabel)


@dataclass
class Intensity:
    """Count, mean and sum of squared deviations, merged pairwise (Chan, Golub and LeVeque 1983)."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    min: float = math.inf
    max: float = -math.inf

    def add(self, pixels: np.ndarray) -> None:
        """Take in all values of one image."""
        flat = pixels.reshape(-1)
        for start in range(0, flat.size, _BLOCK):
            values = flat[start : start + _BLOCK].astype(np.float64)
            mean = float(np.add.reduce(values)) / values.size
            values -= mean
            self._merge(values.size, mean, float(np.vdot(values, values)))
        self.min = min(self.min, float(pixels.min()))
        self.max = max(self.max, float(pixels.max()))

    def merge(self, other: Intensity) -> None:
        """Take in what another one has seen."""
        if other.count:
            self._merge(other.count, other.mean, other.squares)
        self.min = min(self.min, other.min)
        self.max = max(self.max, other.max)

    def _merge(self, count: int, mean: float, squares: float) -> None:
        total = self.count + count
        delta = mean - self.mean
        self.squares += squares + delta * delta * self.count * count / total
        self.mean += delta * count / total
        self.count = total

    @property
    def std(self) -> float:
        """Population standard deviation."""
        return math.sqrt(self.squares / self.count)


@dataclass
class ImageCounts:
    """What is known of the images of one name.

    Attributes:
        images: how many studies have it.
        shapes: at most two of the shapes that occur: one means that all agree.
        dtypes: likewise.
        intensity: of all their pixels that were measured.
    """

    images: int = 0
    shapes: set[tuple[int, ...]] = field(default_factory=set)
    dtypes: set[str] = field(default_factory=set)
    intensity: Intensity = field(default_factory=Intensity)

    def add(self, image: Image) -> None:
        """Count one image; voxels that were not measured have no intensity."""
        self.images += 1
        self._unite({image.pixels.shape}, {image.pixels.dtype.newbyteorder("<").str})
        self.intensity.add(image.values)

    def merge(self, other: ImageCounts) -> None:
        """Take in what another one has counted."""
        self.images += other.images
        self._unite(other.shapes, other.dtypes)
        self.intensity.merge(other.intensity)

    def _unite(self, shapes: set[tuple[int, ...]], dtypes: set[str]) -> None:
        self.shapes = set(sorted(self.shapes | shapes)[:2])
        self.dtypes = set(sorted(self.dtypes | dtypes)[:2])

    @property
    def layout(self) -> ImageLayout:
        """The entry of the manifest."""
        return ImageLayout(
            images=self.images,
            shape=next(iter(self.shapes)) if len(self.shapes) == 1 else None,
            dtype=next(iter(self.dtypes)) if len(self.dtypes) == 1 else None,
            mean=self.intensity.mean,
            std=self.intensity.std,
            min=self.intensity.min,
            max=self.intensity.max,
        )


@dataclass
class SplitCounts:
    """What is known of one split so far; its size does not grow with the number of samples."""

    samples: int = 0
    classes: Counter[int] = field(default_factory=Counter)
    images: dict[str, ImageCounts] = field(default_factory=dict)

    def add(self, sample: Sample) -> None:
        """Count one sample."""
        self.samples += 1
        label = sample.label
        if (
            label is not None
            and label.dtype.kind == "f"
            and sample.task in _CLASSES
            and (label == np.rint(label)).all()
        ):
            label = label.astype(np.int64)
        if label is not None and label.dtype.kind in "biu" and sample.task is not Task.regression:
            multilabel = sample.task is Task.multilabel
            self.classes.update((np.flatnonzero(label) if multilabel else label).tolist())
        for name, image in sample.images.items():
            self.images.setdefault(name, ImageCounts()).add(image)

    def merge(self, other: SplitCounts) -> None:
        """Take in what another one has counted."""
        self.samples += other.samples
        self.classes.update(other.classes)
        for name, counts in other.images.items():
            self.images.setdefault(name, ImageCounts()).merge(counts)

    def layouts(self) -> dict[str, ImageLayout]:
        """The manifest entries of the images, by name."""
        return {name: counts.layout for name, counts in sorted(self.images.items())}

    def to_json(self) -> dict[str, Any]:
        """All of it as plain JSON types; floats survive exactly."""
        return {
            "samples": self.samples,
            "classes": {str(value): count for value, count in self.classes.items()},
            "images": {
                name: {
                    "images": counts.images,
                    "shapes": sorted(counts.shapes),
                    "dtypes": sorted(counts.dtypes),
                    "intensity": vars(counts.intensity),
                }
                for name, counts in self.images.items()
            },
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> SplitCounts:
        """What :meth:`to_json` wrote down."""
        images = {
            name: ImageCounts(
                counts["images"],
                {tuple(shape) for shape in counts["shapes"]},
                set(counts["dtypes"]),
                Intensity(**counts["intensity"]),
            )
            for name, counts in content["images"].items()
        }
        return cls(content["samples"], Counter({int(v): n for v, n in content["classes"].items()}), images)
