"""Numerical phantoms as a source: deterministic, labelled, several images per subject, splits by subject."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from data_shards.card import DatasetCard
from data_shards.phantoms.difficulty import difficulty as difficulty_at
from data_shards.phantoms.population import Population
from data_shards.phantoms.recipes import RECIPES, SLICES, VOLUME, Recipe
from data_shards.phantoms.study import Studies
from data_shards.sample import Sample, subject_hash
from data_shards.sources.base import Source, register_source
from data_shards.support.documents import Document
from data_shards.support.errors import DataError, nearest

Stored = Literal["uint8", "native"]
DIFFICULTY = 0.5


class PhantomsConfig(Document):
    """Which phantoms to draw; an option that is absent keeps the default of the set.

    Attributes:
        sets: names of sets.
        seed: another seed is another population.
        size: pixels along an axis.
        subjects: how many subjects, all splits together.
        images_per_subject: visits of a volume or radiograph, slices of a slice set.
        slices: positions of the slices in mm.
        difficulty: 0 easy to 1 hard.
        masks: whether the mask of the lesions is added.
        dtype: how values are stored.
    """

    sets: tuple[str, ...] = Field(min_length=1, description=f"names of sets: {', '.join(sorted(RECIPES))}")
    seed: int = Field(default=0, ge=0, description="another seed is another population")
    size: int = Field(default=28, description="pixels along an axis")
    subjects: int | None = Field(default=None, description="how many subjects, all splits together")
    images_per_subject: int | None = Field(default=None, description="visits, or slices of a slice set")
    slices: tuple[float, ...] | None = Field(default=None, description="positions in mm, for slice sets")
    difficulty: float = Field(default=DIFFICULTY, description="0 easy to 1 hard")
    masks: bool = Field(default=False, description="add the mask of the lesions")
    dtype: Stored = Field(default="uint8", description="uint8, or native: CT int16, MRI uint16, PET and X-ray float32")


@register_source("phantoms")
class Phantoms(Source):
    """Synthetic scans with labels. Every image depends on set, options, subject and image number alone.

    Images are ``1,H,W`` or ``1,D,H,W`` with spacing. Labels are int64 vectors of length 1 and say what the image shows:
    a slice beside the lesion has label 0. Attributes are ``age_years``, ``lesion_mm3`` (all lesions of the subject
    together) and, for slices, ``slice_mm``.

    Args:
        name: one of :data:`RECIPES`.
        seed: another seed is another population.
        size: pixels along an axis.
        subjects: how many subjects, all splits together; the default is the recipe's.
        images_per_subject: images of each; the default is the recipe's.
        slices: positions of the slices in mm; the default is evenly spaced over the organ.
        difficulty: 0 easy to 1 hard (see :mod:`data_shards.phantoms.difficulty`).
        masks: add the image ``mask``: 0, or the label of the lesion.
        dtype: ``uint8``, or ``native``: CT int16, MRI uint16, PET and X-ray float32.

    Raises:
        DataError: the name is unknown, a number is not in its range, or the set has no such option.
    """

    Config = PhantomsConfig

    def __init__(
        self,
        name: str,
        *,
        seed: int = 0,
        size: int = 28,
        subjects: int | None = None,
        images_per_subject: int | None = None,
        slices: Sequence[float] | None = None,
        difficulty: float = DIFFICULTY,
        masks: bool = False,
        dtype: Stored = "uint8",
    ) -> None:
        if name not in RECIPES:
            raise DataError(f"unknown phantom set {name!r}{nearest(name, RECIPES)}")
        self._recipe = recipe = RECIPES[name]
        self.size = size
        self.subjects = recipe.subjects if subjects is None else subjects
        self.images_per_subject = recipe.images_per_subject if images_per_subject is None else images_per_subject
        if slices is not None:
            self.images_per_subject = _number_of_slices(name, recipe, slices, images_per_subject)
        if min(self.size, self.subjects, self.images_per_subject) < 1:
            raise DataError(f"{name}: size, subjects and images_per_subject are positive numbers")
        self._population = Population(f"{recipe.body.population}/{seed}")
        self._studies = Studies(
            name,
            recipe,
            self._population,
            size,
            tuple(map(float, slices)) if slices is not None else recipe.heights(self.images_per_subject),
            difficulty_at(difficulty),
            masks,
            native=_is_native(name, dtype),
        )
        self.card = _card(name, recipe, size, f"phantoms 2, seed {seed}, difficulty {difficulty:g}")

    def __len__(self) -> int:
        return self.subjects * self.images_per_subject

    def sample(self, position: int) -> Sample:
        """The sample at ``position``, without those before it."""
        subject, number = divmod(position, self.images_per_subject)
        recipe = self._recipe
        drawn = self._studies.draw(subject, number)
        return Sample(
            key=f"{subject:06d}-{number:03d}",
            images=drawn.images,
            organ=recipe.organ,
            subject=subject_hash(str(subject), salt=self._population.name),
            split=self._population.split(subject),
            label=np.array([drawn.label], dtype=np.int64),
            task=recipe.task,
            attributes=drawn.attributes,
        )

    @classmethod
    def from_config(cls, config: Any) -> list[Source]:
        """One source for each of the sets of a :class:`PhantomsConfig`."""
        options = {name: value for name, value in config if name != "sets"}
        return [cls(name, **options) for name in dict.fromkeys(config.sets)]


def _number_of_slices(name: str, recipe: Recipe, slices: Sequence[float], images_per_subject: int | None) -> int:
    if recipe.form != SLICES:
        raise DataError(f"{name} is not a set of slices: it has no option slices")
    if images_per_subject not in (None, len(slices)):
        raise DataError(f"{name}: {len(slices)} slices were given and {images_per_subject} images_per_subject")
    if not np.isfinite(slices).all():
        raise DataError(f"{name}: positions of slices are numbers in mm, found {list(slices)}")
    return len(slices)


def _is_native(name: str, dtype: str) -> bool:
    if dtype not in ("uint8", "native"):
        raise DataError(f"{name}: dtype is uint8 or native, found {dtype!r}")
    return dtype == "native"


def _card(name: str, recipe: Recipe, size: int, version: str) -> DatasetCard:
    volume = recipe.form == VOLUME
    return DatasetCard(
        name=name,
        title=f"{recipe.title}, {'x'.join([str(size)] * (3 if volume else 2))}",
        organ=recipe.organ.name,
        modality=recipe.modality.name,
        dimensionality="volumetric" if volume else "planar",
        task=recipe.task.name,
        classes=recipe.classes,
        licence="Apache-2.0",
        homepage="",
        source_version=version,
        source_checksum={},
        official=False,
        note="synthetic: numerical phantoms, not images of patients",
        split_rule="70 % of subjects train, 10 % val, 20 % test, by a hash of the subject",
    )
