"""One study of a subject: the images of a scan, the mask of its lesions, the label, and what else is known."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from data_shards.phantoms.difficulty import Difficulty
from data_shards.phantoms.grid import Grid
from data_shards.phantoms.modalities import Scan
from data_shards.phantoms.noise import Shading
from data_shards.phantoms.population import Population
from data_shards.phantoms.recipes import PROJECTION, SLICES, VOLUME, Recipe
from data_shards.phantoms.subject import Body, Subject
from data_shards.sample import MASK, Image


@dataclass(frozen=True)
class Drawn:
    """What :meth:`Studies.draw` makes.

    Attributes:
        images: by name, with the mask when it was asked for.
        label: the kind of lesion that the images show, 0 for none.
        attributes: further numbers.
    """

    images: dict[str, Image]
    label: int
    attributes: dict[str, float]


@dataclass(frozen=True)
class Studies:
    """Draws the studies of a set.

    Attributes:
        name: of the set; sets of one family differ in noise.
        recipe: of the set.
        population: the subjects.
        size: voxels along an axis of an image.
        heights: positions of the slices in mm, where an image is a slice.
        hard: how difficult.
        masks: whether to add the mask.
        native: whether to keep the dtype of the modality.
    """

    name: str
    recipe: Recipe
    population: Population
    size: int
    heights: tuple[float, ...]
    hard: Difficulty
    masks: bool
    native: bool

    def subject(self, number: int) -> Subject:
        """The subject of this number, with the lesions that the recipe gives it."""
        label = self.population.label(number, dict(zip(self.recipe.classes, self.recipe.prevalence, strict=True)))
        return _subject(self.recipe.body, self.population, number, label, self.hard)

    def draw(self, subject_number: int, number: int) -> Drawn:
        """Image ``number`` of a subject: a visit, or a slice of the first visit."""
        subject, recipe = self.subject(subject_number), self.recipe
        sliced = recipe.form == SLICES
        visit = 0 if sliced else number
        grid = recipe.grid(self.size)
        if sliced:
            grid = grid.plane(self.heights[number])
        mask = subject.mask(grid, visit)
        if recipe.form == PROJECTION:
            mask = np.logical_or.reduce(mask, axis=0, keepdims=True)
        images = {
            name: self._image(pixels, grid, name)
            for name, pixels in self._acquire(subject, subject_number, number, visit, grid).items()
        }
        if self.masks:
            images[MASK] = self._image(mask.astype(np.uint8) * np.uint8(subject.label), grid, next(iter(recipe.looks)))
        attributes = {"age_years": subject.age_years, "lesion_mm3": round(subject.lesion_mm3, 1)}
        if sliced:
            attributes["slice_mm"] = self.heights[number]
        return Drawn(images, subject.label if mask.any() else 0, attributes)

    def _acquire(
        self, subject: Subject, subject_number: int, number: int, visit: int, grid: Grid
    ) -> dict[str, np.ndarray]:
        """The pixels of every image of the study that there is, in the stored dtype, D,H,W or 1,H,W."""
        present = {
            name: look
            for name, look in self.recipe.looks.items()
            if self.population.fraction(f"missing/{name}", subject_number, visit) >= self.recipe.missing.get(name, 0.0)
        }
        clean, texture = subject.paint(grid, visit, [look.table for look in present.values()])
        pixels = {}
        for (name, look), values in zip(present.items(), clean, strict=True):
            # Slices share the shading of their scan; noise is each image's own.
            shading = Shading(
                self.population.random(f"shading/{look.modality.name}", subject_number, visit),
                self.hard.bias,
                self.recipe.body.extent_mm,
            )
            scan = Scan(grid, texture, shading(grid), self.hard.noise)
            random = self.population.random(f"noise/{self.name}/{name}", subject_number, number)
            measured = look.acquire(values, scan, random)
            pixels[name] = look.native(measured) if self.native else look.display(measured)
        return pixels

    def _image(self, pixels_DHW: np.ndarray, grid: Grid, name: str) -> Image:
        """One channel; the axis D is dropped where an image is a plane."""
        volume = self.recipe.form == VOLUME
        return Image(
            pixels_DHW[None] if volume else pixels_DHW,
            self.recipe.looks[name].modality,
            grid.spacing if volume else grid.spacing[1:],
        )


@functools.lru_cache(maxsize=2)
def _subject(body: Body, population: Population, number: int, label: int, hard: Difficulty) -> Subject:
    """Kept while the images of a subject are drawn one after the other."""
    return Subject(body, population, number, label, hard)
