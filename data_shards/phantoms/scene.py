"""Structures painted one over the other: shapes and tissues become intensities on a grid."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from data_shards.phantoms.grid import Box, Grid, Warp
from data_shards.phantoms.shapes import Capsule, Shape, Union, coverage
from data_shards.phantoms.tissues import Table

# Up to so many distances the parts of a tube are computed together.
_AT_ONCE = 1 << 15


@dataclass(frozen=True)
class Structure:
    """One thing in the body.

    Attributes:
        tissue: its name in the tables of :mod:`data_shards.phantoms.tissues`.
        shape: where it is.
        opacity: 1 replaces what is below; less lets it shine through.
        softness_mm: width of its own border, besides partial volume.
        within: what it does not leave, such as the lung of a vessel.
    """

    tissue: str
    shape: Shape
    opacity: float = 1.0
    softness_mm: float = 0.0
    within: Shape | None = None


@dataclass(frozen=True)
class Anatomy:
    """The healthy body of a subject.

    Attributes:
        structures: in the order in which they are painted: later ones lie in front.
        body: everything but air; clutter stays in it.
        hosts: the shapes that a lesion may lie in, by the name that :mod:`data_shards.phantoms.lesions` uses.
    """

    structures: Sequence[Structure]
    body: Shape
    hosts: Mapping[str, Shape] = field(default_factory=dict)


class Sampler:
    """The shapes of one warped subject at the voxels of one grid.

    Args:
        grid: where the voxels are.
        warp: pose and deformation of the subject.
        edge: width of the border between two tissues in voxels; 1 is exact partial volume.
    """

    def __init__(self, grid: Grid, warp: Warp, edge: float = 1.0) -> None:
        self.grid, self._warp = grid, warp
        self.width = grid.width * edge
        self.x, self.y, self.z = warp.points(grid)

    def boxes(self, boxes_N23: np.ndarray, margin_N1: np.ndarray | float) -> list[Box | None]:
        """The part of the grid that each box of the model may reach, ``margin_N1`` mm around it counted in."""
        return self.grid.within(*self._warp.boxes(boxes_N23[:, 0], boxes_N23[:, 1], margin_N1))

    def distance(self, shape: Shape, box: Box) -> np.ndarray:
        """Signed distance at the voxels of ``box``."""
        return shape.distance(self.x[box], self.y[box], self.z[box])

    def covers(self, structures: Sequence[Structure]) -> Iterator[tuple[Structure, Box, np.ndarray]]:
        """Each structure that the grid meets: for which part of the grid, and which share of each voxel it fills."""
        widths = np.array([max(self.width, each.softness_mm) for each in structures])
        boxes = self.boxes(np.stack([each.shape.box for each in structures]), widths[:, None] / 2)
        for structure, box, width in zip(structures, boxes, widths.tolist(), strict=True):
            if box is not None:
                cover = self._cover(structure.shape, box, width)
                if structure.within is not None:
                    cover = cover * coverage(self.distance(structure.within, box), width)
                yield structure, box, cover

    def _cover(self, shape: Shape, box: Box, width: float) -> np.ndarray:
        if not isinstance(shape, Union):
            return coverage(self.distance(shape, box), width) * shape.fill(width)
        whole = np.zeros([side.stop - side.start for side in box])
        inners = self.boxes(shape.boxes, width / 2)
        near = [part for part, inner in zip(shape.parts, inners, strict=True) if inner is not None]
        capsules = [part for part in near if isinstance(part, Capsule)]
        if near and len(capsules) == len(near) and len(near) * whole.size <= _AT_ONCE:
            distances = Capsule.distances(capsules, self.x[box], self.y[box], self.z[box])
            fills = np.array([part.fill(width) for part in capsules]).reshape(-1, 1, 1, 1)
            return (coverage(distances, width) * fills).max(axis=0)
        # Part by part: most parts reach a small piece of the box only.
        for part, inner in zip(shape.parts, inners, strict=True):
            if inner is not None:
                place = tuple(slice(i.start - b.start, i.stop - b.start) for i, b in zip(inner, box, strict=True))
                cover = coverage(self.distance(part, inner), width) * part.fill(width)
                np.maximum(whole[place], cover, out=whole[place])
        return whole


def paint(sampler: Sampler, structures: Sequence[Structure], tables: Sequence[Table]) -> list[np.ndarray]:
    """Intensities of the structures, without noise.

    Args:
        sampler: grid and subject.
        structures: painted in this order on air.
        tables: for each image wanted, the value of each tissue.

    Returns:
        One float64 array of the shape of the grid for each table.
    """
    images = [np.full(sampler.grid.shape, float(table["air"])) for table in tables]
    for structure, box, cover in sampler.covers(structures):
        if structure.opacity != 1:
            cover = cover * structure.opacity
        for image, table in zip(images, tables, strict=True):
            part = image[box]
            part += (table[structure.tissue] - part) * cover
    return images
