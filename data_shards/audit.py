"""What is watched while shards are written: keys, subjects, repeated images, intensities and counts.

One digest per sample is kept, never pixels.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from data_shards.manifest import ImageLayout
from data_shards.sample import SPLITS, Sample
from data_shards.support.errors import DataError
from data_shards.vocabulary import Task


@dataclass
class Intensity:
    """Running count, mean and sum of squared deviations, merged pairwise (Chan, Golub and LeVeque 1983)."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    min: float = math.inf
    max: float = -math.inf

    def add(self, pixels: np.ndarray) -> None:
        """Take in all values of one image."""
        values = pixels.astype(np.float64)
        mean = float(values.mean())
        values -= mean
        self._merge(values.size, mean, float(np.vdot(values, values)))
        self.min = min(self.min, float(pixels.min()))
        self.max = max(self.max, float(pixels.max()))

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
class SplitAudit:
    """What is known of one split so far."""

    samples: int = 0
    subjects: int = 0
    classes: Counter[int] = field(default_factory=Counter)
    shapes: dict[str, set[tuple[int, ...]]] = field(default_factory=dict)
    dtypes: dict[str, set[str]] = field(default_factory=dict)
    images: Counter[str] = field(default_factory=Counter)
    intensity: dict[str, Intensity] = field(default_factory=dict)

    def add(self, sample: Sample) -> None:
        """Count one sample."""
        self.samples += 1
        if sample.label is not None and sample.label.dtype.kind in "biu":
            multilabel = sample.task is Task.multilabel
            self.classes.update((np.flatnonzero(sample.label) if multilabel else sample.label).tolist())
        for name, image in sample.images.items():
            pixels = image.pixels
            self.images[name] += 1
            self.shapes.setdefault(name, set()).add(pixels.shape)
            self.dtypes.setdefault(name, set()).add(pixels.dtype.newbyteorder("<").str)
            self.intensity.setdefault(name, Intensity()).add(pixels)

    def layouts(self) -> dict[str, ImageLayout]:
        """The manifest entries of the images, by name."""
        return {
            name: ImageLayout(
                images=self.images[name],
                shape=next(iter(self.shapes[name])) if len(self.shapes[name]) == 1 else None,
                dtype=next(iter(self.dtypes[name])) if len(self.dtypes[name]) == 1 else None,
                mean=intensity.mean,
                std=intensity.std,
                min=intensity.min,
                max=intensity.max,
            )
            for name, intensity in sorted(self.intensity.items())
        }


class Audit:
    """Refuses what must never be in a dataset, and counts the rest."""

    def __init__(self) -> None:
        self.splits: dict[str, SplitAudit] = {}
        self.vocabulary: dict[str, dict[str, int]] = {"organ": {}, "modality": {}, "dimensionality": {}, "task": {}}
        self._keys: set[bytes] = set()
        self._subjects: dict[str, str] = {}
        self._contents: dict[bytes, int] = {}

    def add(self, sample: Sample) -> None:
        """Take in one sample.

        Raises:
            DataError: its key was there before, its subject is in another split, or its pixels are not finite.
        """
        key = sample.key.encode()
        if key in self._keys:
            raise DataError(f"sample {sample.key}: the key occurs twice")
        self._keys.add(key)
        split = self.splits.setdefault(sample.split, SplitAudit())
        home = self._subjects.get(sample.subject)
        if home is None:
            self._subjects[sample.subject] = sample.split
            split.subjects += 1
        elif home != sample.split:
            raise DataError(
                f"sample {sample.key}: its subject {sample.subject} is in split {home} and in split {sample.split}; "
                "splits are by subject"
            )
        for name, image in sample.images.items():
            if image.pixels.dtype.kind == "f" and not np.isfinite(image.pixels).all():
                raise DataError(f"sample {sample.key}: image {name!r} has values that are not finite")
            content = _content(image.pixels)
            self._contents[content] = self._contents.get(content, 0) | 1 << SPLITS.index(sample.split)
            self.vocabulary["modality"][image.modality.name] = int(image.modality)
            self.vocabulary["dimensionality"][image.dimensionality.name] = int(image.dimensionality)
        self.vocabulary["organ"][sample.organ.name] = int(sample.organ)
        self.vocabulary["task"][sample.task.name] = int(sample.task)
        split.add(sample)

    def shared_images(self) -> dict[str, int]:
        """For each pair of splits that occur, how many different images are in both."""
        masks = Counter(self._contents.values())
        shared = {}
        for first, second in itertools.combinations([split for split in SPLITS if split in self.splits], 2):
            pair = 1 << SPLITS.index(first) | 1 << SPLITS.index(second)
            shared[f"{first}/{second}"] = sum(count for mask, count in masks.items() if mask & pair == pair)
        return shared


def _content(pixels: np.ndarray) -> bytes:
    digest = hashlib.blake2b(f"{pixels.dtype.str}{pixels.shape}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()
