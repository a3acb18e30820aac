"""Clutter: threads and plates anywhere in the body that share the look of lesions but not their form or place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data_shards.phantoms.scene import Structure
from data_shards.phantoms.shapes import Intersection, Shape, Superquadric, rotation, tube

MOST = 32


def draw_clutter(
    tissues: Sequence[str], body: Shape, field_mm: Sequence[float], random: np.random.Generator, count: int
) -> list[Structure]:
    """``count`` structures; those of a smaller count are among those of a larger one.

    Args:
        tissues: what they are made of.
        body: they do not leave it.
        field_mm: extent in x, y, z that is looked at.
        random: of the clutter of this subject.
        count: how many, at most :data:`MOST`.
    """
    structures = []
    for _ in range(MOST):
        centre = random.uniform(-0.45, 0.45, 3) * np.asarray(field_mm)
        along = random.normal(size=3)
        along *= random.uniform(8, 30) / np.linalg.norm(along)
        bend = random.normal(0, 6, 3)
        radius = random.uniform(1.0, 3.0)
        plate = Superquadric(centre, (random.uniform(5, 13), random.uniform(5, 13), 1.5), rotation=rotation(*along))
        thread = tube([centre - along, centre + bend, centre + along], radius)
        shape: Shape = thread if random.random() < 0.6 else plate
        tissue = tissues[int(random.integers(len(tissues)))]
        structures.append(Structure(tissue, Intersection(shape, body), random.uniform(0.4, 0.9)))
    return structures[:count]
