"""Spine and ribs, shared by chest and abdomen."""

from __future__ import annotations

import numpy as np

from data_shards.phantoms.population import Variation
from data_shards.phantoms.scene import Structure
from data_shards.phantoms.shapes import Grown, Shape, Superquadric, Union, tube


def spine(vary: Variation, y: float, low: float, high: float) -> list[Structure]:
    """Vertebrae with discs, canal and processes, their middle at ``y``, from ``low`` to ``high`` mm."""
    pitch, radii = vary.between(26, 32), vary.scaled((20, 15), 0.1)
    bodies: list[Shape] = []
    arches: list[Shape] = []
    for z in np.arange(low + vary.between(0, 20), high, pitch):
        bodies.append(Superquadric((0, y, z), (*radii, pitch / 2 - 2.5), exponent=4))
        for side in (-1, 1):
            arches += tube([(side * 11, y + 12, z), (side * 13, y + 22, z), (0, y + 34, z - 4)], [4, 4, 4]).parts
            arches += tube([(side * 13, y + 22, z), (side * 34, y + 26, z)], [4, 3]).parts
        arches += tube([(0, y + 34, z - 4), (0, y + 50, z - 12)], [4, 3]).parts
    column = Superquadric((0, y, (low + high) / 2), (radii[0] - 2, radii[1] - 2, (high - low) / 2), exponent=4)
    canal = tube([(0, y + 24, low), (0, y + 24, high)], 8)
    return [
        Structure("fibre", column),
        Structure("bone", Union([*bodies, *arches])),
        Structure("marrow", Union([Grown(body, -2.5) for body in bodies])),
        Structure("fluid", canal),
    ]


def ribs(vary: Variation, width: float, depth: float, y: float, low: float, high: float) -> Structure:
    """Pairs of ribs on an ellipse of half axes ``width``, ``depth`` about ``y``.

    They start between ``low`` and ``high`` at the spine and run down to the front, as far as the cartilage.
    """
    pitch, fall, radius = vary.between(25, 30), vary.between(50, 75), vary.between(4, 5.5)
    parts: list[Shape] = []
    angles = np.linspace(0.1, 0.84, 8) * np.pi
    for z in np.arange(low, high, pitch):
        for side in (-1, 1):
            points = [
                (side * width * np.sin(a), y + depth * np.cos(a), z - fall * (1 - np.cos(a)) / 2 + 8 * np.sin(a))
                for a in angles
            ]
            parts += tube(points, radius).parts
    return Structure("bone", Union(parts))
