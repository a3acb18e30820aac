"""Lesions: how many, how large, how rough, how clear, and where they may lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from data_shards.phantoms.difficulty import Difficulty
from data_shards.phantoms.scene import Structure
from data_shards.phantoms.shapes import Intersection, Shape, Superquadric, rotation
from data_shards.phantoms.waves import Rough, Waves

_TRIES = 64


@dataclass(frozen=True)
class LesionKind:
    """One kind of lesion.

    Attributes:
        host: the shape of the anatomy it lies in.
        count: least and greatest number in a subject that has it.
        radius_mm: least and greatest mean radius.
        flatness: the half axes are the mean radius times factors from ``1 / flatness`` to ``flatness``.
        opacity: 1 for a solid one, less for one that the host shines through.
        softness_mm: width of its border.
    """

    host: str
    count: tuple[int, int]
    radius_mm: tuple[float, float]
    flatness: float = 1.3
    opacity: float = 1.0
    softness_mm: float = 0.0


def draw_lesions(
    name: str, kind: LesionKind, hosts: Mapping[str, Shape], random: np.random.Generator, hard: Difficulty
) -> Sequence[Structure]:
    """The lesions of one subject, each within its host.

    Args:
        name: tissue.
        kind: what to draw.
        hosts: of the anatomy.
        random: of the lesions of this subject.
        hard: size, contrast and roughness.
    """
    host = hosts[kind.host]
    structures = []
    for _ in range(int(random.integers(kind.count[0], kind.count[1] + 1))):
        radius = random.uniform(*kind.radius_mm) * hard.lesion_size
        axes = np.exp(random.uniform(-1, 1, 3) * np.log(kind.flatness))
        radii = radius * axes / axes.prod() ** (1 / 3)
        centre = _place(host, random, radius)
        solid: Shape = Superquadric(centre, radii, rotation=rotation(*random.uniform(0, np.pi, 3)))
        waves = Waves(random, 1.2 * radius, 3 * radius, 5)
        solid = Rough(solid, waves, hard.lesion_roughness * radius)
        opacity = kind.opacity * hard.lesion_contrast
        structures.append(Structure(name, Intersection(solid, host), opacity, kind.softness_mm))
    return structures


def _place(host: Shape, random: np.random.Generator, radius: float) -> np.ndarray:
    """A point at least half a radius deep in the host: the first of some tries, or the deepest of them."""
    low, high = host.box
    points = random.uniform(low, high, (_TRIES, 3))
    depth = -host.distance(*points.T)
    enough = np.flatnonzero(depth > radius / 2)
    return points[enough[0] if enough.size else int(np.argmax(depth))]
