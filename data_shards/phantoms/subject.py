"""One subject of a population: anatomy, lesions and clutter, and how a scan of them is drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from data_shards.phantoms.clutter import draw_clutter
from data_shards.phantoms.difficulty import Difficulty
from data_shards.phantoms.grid import Grid, Warp
from data_shards.phantoms.lesions import LesionKind, draw_lesions
from data_shards.phantoms.population import Population, Variation
from data_shards.phantoms.scene import Anatomy, Sampler, Structure, paint
from data_shards.phantoms.shapes import coverage
from data_shards.phantoms.tissues import Table
from data_shards.phantoms.waves import Waves
from data_shards.vocabulary import Organ

Build = Callable[[Variation, float, float], Anatomy]

_VOLUME_SAMPLES = 20


@dataclass(frozen=True, eq=False)
class Body:
    """What the subjects of a family of sets have in common: sets of one family show the same subjects.

    Attributes:
        population: name of the family.
        organ: the body part.
        build: draws the anatomy from random numbers, age and detail.
        extent_mm: field of view in x, y, z.
        kinds: the lesions, tissue and kind, by class of the label; 0 is the class without.
        clutter: tissues that clutter is made of.
        ages: youngest and oldest subject in years.
    """

    population: str
    organ: Organ
    build: Build
    extent_mm: tuple[float, float, float]
    kinds: dict[int, tuple[str, LesionKind]]
    clutter: tuple[str, ...]
    ages: tuple[float, float] = (20.0, 89.0)

    @property
    def classes(self) -> dict[int, str]:
        """Name of each label."""
        return {0: "none", **{label: name for label, (name, _) in self.kinds.items()}}


class Subject:
    """A subject, ready to be scanned at any position and resolution.

    Args:
        body: the family.
        population: where random numbers come from.
        number: of the subject.
        label: which kind of lesions; 0 is none.
        hard: how difficult.

    Attributes:
        label: as given.
        age_years: drives sizes of the anatomy.
        lesions: empty for label 0.
        lesion_mm3: volume of all lesions together.
    """

    def __init__(self, body: Body, population: Population, number: int, label: int, hard: Difficulty) -> None:
        self._population, self._number, self._hard = population, number, hard
        self.label = label
        self.age_years = round(float(population.random("age", number).uniform(*body.ages)), 1)
        vary = Variation(population.random("anatomy", number), hard.variability)
        anatomy = body.build(vary, self.age_years, hard.detail)
        random = population.random("clutter", number)
        clutter = draw_clutter(body.clutter, anatomy.body, body.extent_mm, random, hard.clutter)
        self.lesions: Sequence[Structure] = ()
        if label:
            name, kind = body.kinds[label]
            self.lesions = draw_lesions(name, kind, anatomy.hosts, population.random("lesions", number), hard)
        self._structures = [*anatomy.structures, *clutter, *self.lesions]
        self._texture = Waves(population.random("texture", number), 10, 40, 6)
        self.lesion_mm3 = self._volume()

    def warp(self, visit: int | None) -> Warp:
        """The deformation of the subject in the pose of one visit; upright and centred for None."""
        angles, shift = np.zeros((2, 3))
        if visit is not None:
            random = self._population.random("pose", self._number, visit)
            angles, shift = random.normal(size=3) * self._hard.turn_rad, random.normal(size=3) * self._hard.shift_mm
        random = self._population.random("deformation", self._number)
        return Warp(random, self._hard.deformation_mm, angles=tuple(angles), shift=tuple(shift))

    def paint(self, grid: Grid, visit: int, tables: Sequence[Table]) -> tuple[list[np.ndarray], np.ndarray]:
        """Values of the tissues without noise for each table, and the texture, all D,H,W."""
        sampler = Sampler(grid, self.warp(visit), self._hard.edge_voxels)
        texture = np.zeros(grid.shape)
        if self._hard.texture:
            texture = self._hard.texture * self._texture(sampler.x, sampler.y, sampler.z)
        return paint(sampler, self._structures, tables), texture

    def mask(self, grid: Grid, visit: int) -> np.ndarray:
        """Which voxels have their centre in a lesion, bool D,H,W.

        When the lesions of a volume are too small to hold any centre, the voxel nearest to one is taken.
        """
        mask = np.zeros(grid.shape, dtype=bool)
        if not self.lesions:
            return mask
        sampler = Sampler(grid, self.warp(visit))
        boxes = sampler.boxes(np.stack([lesion.shape.box for lesion in self.lesions]), grid.width)
        nearest, place = grid.width / 2, None
        for lesion, box in zip(self.lesions, boxes, strict=True):
            if box is not None:
                distance = sampler.distance(lesion.shape, box)
                mask[box] |= distance <= 0
                if distance.min() < nearest:
                    index = np.unravel_index(int(distance.argmin()), distance.shape)
                    nearest, place = distance.min(), tuple(i + b.start for i, b in zip(index, box, strict=True))
        if place is not None and grid.shape[0] > 1:
            mask[place] = True
        return mask

    def _volume(self) -> float:
        """Sum of the lesions on a fine grid around each; what lies in an earlier lesion is not counted again."""
        warp, total = self.warp(None), 0.0
        for number, lesion in enumerate(self.lesions):
            low, high = (side[0] for side in warp.boxes(lesion.shape.box[:1], lesion.shape.box[1:], 0.0))
            step = (high - low) / _VOLUME_SAMPLES
            view = ((0, 1), (1, 1), (2, 1))
            grid = Grid(view, tuple(low + step / 2), tuple(step), (_VOLUME_SAMPLES,) * 3)
            points = warp.points(grid)
            share = coverage(lesion.shape.distance(*points), grid.width)
            for earlier in self.lesions[:number]:
                ours, theirs = lesion.shape.box, earlier.shape.box
                if (ours[0] > theirs[1]).any() or (theirs[0] > ours[1]).any():
                    continue
                share = np.minimum(share, 1 - coverage(earlier.shape.distance(*points), grid.width))
            total += float(share.sum() * step.prod())
        return total
