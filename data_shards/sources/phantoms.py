"""Numerical phantoms as a source: deterministic, labelled, several images per subject, splits by subject."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from data_shards.phantoms import breast, chest, retina
from data_shards.sample import Image, Sample, subject_hash
from data_shards.sources.base import DatasetCard, register_source
from data_shards.support.errors import DataError, nearest
from data_shards.vocabulary import Modality, Organ, Task

Draw = Callable[[np.random.Generator, np.random.Generator, int, int], np.ndarray]


@dataclass(frozen=True)
class Recipe:
    """One named set: what is drawn, and how many of it.

    Attributes:
        title: one line for people.
        organ: the body part drawn.
        modality: the look.
        task: how the label is to be read.
        classes: name of each label value.
        prevalence: share of each class among subjects, in the order of the classes.
        subjects: how many subjects, all splits together.
        images_per_subject: images of each subject; they share anatomy and label.
        draw: makes one image from the random numbers of subject and image, label and size.
    """

    title: str
    organ: Organ
    modality: Modality
    task: Task
    classes: dict[int, str]
    prevalence: tuple[float, ...]
    subjects: int
    images_per_subject: int
    draw: Draw


RECIPES = {
    "phantom-chest": Recipe(
        "Chest radiograph phantoms, opacity or clear",
        *(Organ.chest, Modality.xray, Task.binary, chest.CLASSES, (0.4, 0.6), 1960, 3, chest.draw),
    ),
    "phantom-breast": Recipe(
        "Breast ultrasound phantoms, malignant or benign mass",
        *(Organ.breast, Modality.ultrasound, Task.binary, breast.CLASSES, (0.35, 0.65), 390, 2, breast.draw),
    ),
    "phantom-retina": Recipe(
        "Fundus photograph phantoms, five grades",
        *(
            Organ.retina,
            Modality.fundus,
            Task.ordinal,
            retina.CLASSES,
            (0.4, 0.15, 0.2, 0.15, 0.1),
            800,
            2,
            retina.draw,
        ),
    ),
}

_TRAIN, _VAL = 0.7, 0.1


@register_source("phantoms")
class Phantoms:
    """Synthetic organ images with labels. Every image depends on name, seed, subject and image number alone.

    Labels are int64 vectors of length 1; images are uint8 ``C,H,W`` with 1 or 3 channels and unknown spacing.

    Args:
        name: one of :data:`RECIPES`.
        seed: another seed is another population.
        size: pixels along an axis.
        subjects: how many subjects, all splits together; the default is the recipe's.
        images_per_subject: images of each; the default is the recipe's.

    Raises:
        DataError: the name is unknown or a number is not positive.
    """

    def __init__(
        self,
        name: str,
        *,
        seed: int = 0,
        size: int = 28,
        subjects: int | None = None,
        images_per_subject: int | None = None,
    ) -> None:
        if name not in RECIPES:
            raise DataError(f"unknown phantom set {name!r}{nearest(name, RECIPES)}")
        self._recipe = recipe = RECIPES[name]
        self._population = f"{name}/{seed}"
        self.size = size
        self.subjects = recipe.subjects if subjects is None else subjects
        self.images_per_subject = recipe.images_per_subject if images_per_subject is None else images_per_subject
        if min(self.size, self.subjects, self.images_per_subject) < 1:
            raise DataError(f"{name}: size, subjects and images_per_subject are positive numbers")
        self.card = DatasetCard(
            name=name,
            title=f"{recipe.title}, {size}x{size}",
            organ=recipe.organ.name,
            modality=recipe.modality.name,
            dimensionality="planar",
            task=recipe.task.name,
            classes=recipe.classes,
            licence="Apache-2.0",
            homepage="",
            source_version=f"phantoms 1, seed {seed}",
            source_checksum={},
            official=False,
            note="synthetic: numerical phantoms, not images of patients",
            split_rule="70 % of subjects train, 10 % val, 20 % test, by a hash of the subject",
        )

    def __len__(self) -> int:
        return self.subjects * self.images_per_subject

    def __iter__(self) -> Iterator[Sample]:
        return map(self.sample, range(len(self)))

    def sample(self, position: int) -> Sample:
        """The sample at ``position``, without those before it."""
        subject, number = divmod(position, self.images_per_subject)
        label, split = self._label(subject), self._split(subject)
        pixels = self._recipe.draw(
            self._random("anatomy", subject), self._random("view", subject, number), label, self.size
        )
        return Sample(
            key=f"{subject:06d}-{number:03d}",
            images={"image": Image(pixels, self._recipe.modality)},
            organ=self._recipe.organ,
            subject=subject_hash(str(subject), salt=self._population),
            split=split,
            label=np.array([label], dtype=np.int64),
            task=self._recipe.task,
        )

    def _label(self, subject: int) -> int:
        shares = np.cumsum(self._recipe.prevalence)
        place = int(np.searchsorted(shares, self._fraction("label", subject), side="right"))
        return list(self._recipe.classes)[min(place, len(shares) - 1)]

    def _split(self, subject: int) -> str:
        fraction = self._fraction("split", subject)
        return "train" if fraction < _TRAIN else "val" if fraction < _TRAIN + _VAL else "test"

    def _fraction(self, purpose: str, subject: int) -> float:
        return int.from_bytes(self._digest(purpose, subject)[:6], "little") / (1 << 48)

    def _random(self, purpose: str, *numbers: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(int.from_bytes(self._digest(purpose, *numbers), "little")))

    def _digest(self, purpose: str, *numbers: int) -> bytes:
        text = "/".join([self._population, purpose, *map(str, numbers)])
        return hashlib.blake2b(text.encode(), digest_size=16).digest()
