"""Chest: lungs with vessel trees and airways, heart, aorta, ribs, spine, sternum, diaphragm."""

from __future__ import annotations

import numpy as np

from data_shards.phantoms.anatomy.skeleton import ribs, spine
from data_shards.phantoms.population import Variation
from data_shards.phantoms.scene import Anatomy, Structure
from data_shards.phantoms.shapes import Grown, Intersection, Shape, Superquadric, Union, rotation, tube

_BRANCHES = 12


def build(vary: Variation, age_years: float, detail: float) -> Anatomy:
    """The trunk of one subject from neck to liver; the origin is in the middle of the lungs.

    Args:
        vary: random numbers of the subject.
        age_years: widens heart and aorta.
        detail: share of the vessels of the lungs that are drawn.
    """
    old = (age_years - 20) / 70
    width, depth = vary.between(148, 172), vary.between(98, 116)
    body = Superquadric((0, 0, -60), (width, depth, 250), exponent=2.7)
    wall = Grown(body, -vary.between(10, 26))
    cage_width, cage_depth = vary.between(122, 134), vary.between(84, 92)
    cage = Superquadric((0, 0, -10), (cage_width, cage_depth, 165), exponent=2.4)
    middle, domes = _mediastinum(vary, old), _domes(vary)
    lungs = _lungs(vary, Union([middle, domes]), cage)
    structures = [
        Structure("skin", body),
        Structure("fat", Grown(body, -2)),
        Structure("muscle", wall),
        Structure("fat", Intersection(cage, Superquadric((0, 0, 0), (100, 100, 145), exponent=3))),
        Structure("lung", lungs),
        Structure("liver", domes),
        ribs(vary, cage_width - 3, cage_depth - 3, 0, -120, 150),
        *spine(vary, vary.between(47, 53), -200, 200),
        Structure("bone", tube([(0, -cage_depth + 4, 70), (0, -cage_depth - 2, 0), (0, -cage_depth + 4, -60)], 7)),
        *_shoulders(vary, Grown(body, -8)),
        *_vessels(vary, lungs, detail),
        *_heart_and_airways(vary, old),
    ]
    return Anatomy(structures, body, {"lungs": Grown(lungs, -3)})


def _mediastinum(vary: Variation, old: float) -> Shape:
    """The space between the lungs, and the heart bulging to the left."""
    centre, radii = vary.around((24, -28, -48), 5), vary.scaled((58, 40, 50), 0.1) * (1 + 0.15 * old)
    heart = Superquadric(centre, radii, rotation=rotation(y=0.5))
    return Union([Superquadric((4, 20, 0), (26, 78, 190), exponent=3), heart])


def _domes(vary: Variation) -> Union:
    """Both halves of the diaphragm, with what lies below; the right one is higher."""
    return Union(
        [
            Superquadric((-62, 0, -150), (72, 92, vary.between(66, 82)), exponent=2.2),
            Superquadric((66, 0, -156), (70, 92, vary.between(62, 76)), exponent=2.2),
        ]
    )


def _lungs(vary: Variation, holes: Shape, cage: Shape) -> Union:
    parts = []
    for side in (-1, 1):
        lung = Superquadric((side * 64, 4, -26), vary.scaled((58, 80, 150), 0.05), exponent=2.4)
        parts.append(Intersection(Intersection(lung, Grown(cage, -7)), holes, outside=True))
    return Union(parts)


def _heart_and_airways(vary: Variation, old: float) -> list[Structure]:
    turn = rotation(y=0.5)
    centre, grow = vary.around((24, -28, -48), 4), 1 + 0.15 * old
    aorta = vary.between(11, 13) * (1 + 0.35 * old)
    arch = [(-4, -22, -20), (-10, -20, 30), (2, 0, 54), (18, 26, 48), (22, 38, 20), (20, 40, -190)]
    left, right = centre + np.array((8, -2, -4)), centre + np.array((-30, 2, 12))
    return [
        Structure("heart", Superquadric(centre, np.array((54, 36, 46)) * grow, rotation=turn)),
        Structure("blood", Superquadric(left, np.array((32, 20, 27)) * grow, rotation=turn)),
        Structure("blood", Superquadric(right, np.array((22, 22, 28)) * grow)),
        Structure("blood", tube(arch, aorta)),
        Structure("blood", tube([(-26, -14, 110), (-26, -14, -20)], 9)),
        Structure("blood", tube([(6, -20, 0), (4, -4, 22), (-34, 6, 12)], [13, 12, 9])),
        Structure("blood", tube([(4, -4, 22), (38, 10, 16)], [12, 9])),
        Structure("gas", tube([(0, 4, 190), (0, 12, 40), (-32, 18, 16)], [9, 9, 6])),
        Structure("gas", tube([(0, 12, 40), (34, 20, 14)], [8, 6])),
    ]


def _shoulders(vary: Variation, inside: Shape) -> list[Structure]:
    """Collar bones and shoulder blades: they lie over the lungs in a radiograph."""
    bones: list[Shape] = []
    for side in (-1, 1):
        slope = vary.between(10, 35)
        points = [(side * 14, -66, 112), (side * 70, -60, 118 + slope / 2), (side * 130, -20, 112 + slope)]
        bones += tube(points, 6).parts
        blade = rotation(z=-side * 0.55, y=side * 0.15)
        bones.append(Superquadric((side * 92, 74, 60), (32, 3.5, 60), rotation=blade, exponent=2.5))
    return [Structure("bone", Union(bones), within=inside)]


def _vessels(vary: Variation, lungs: Union, detail: float) -> list[Structure]:
    """Two trees that branch from the roots of the lungs outwards."""
    structures = []
    for side, lung in zip((-1, 1), lungs.parts, strict=True):
        root = np.array((side * 34.0, 10.0, 14.0))
        branches: list[Shape] = []
        for number in range(_BRANCHES):
            angle, tilt = 2.4 * number, np.clip(-0.9 + 0.17 * number + 0.3 * vary.random.normal(), -1.2, 1.1)
            towards = np.array((side * (0.45 + 0.3 * np.cos(angle)), 0.55 * np.sin(angle), 1.1 * np.sin(tilt)))
            knee = root + towards * (38 + 14 * vary.random.random())
            radius = 3.0 + 1.5 * vary.random.random()
            twigs: list[Shape] = list(tube([root, knee], [radius + 1, radius * 0.7]).parts)
            for _ in range(3):
                tip = knee + (towards + 0.45 * vary.random.normal(size=3)) * (34 + 26 * vary.random.random())
                twigs += tube([knee, tip], [radius * 0.65, 0.9]).parts
            if number < round(_BRANCHES * (0.3 + 0.7 * detail)):
                branches += twigs
        structures.append(Structure("blood", Union(branches), within=Grown(lung, -1)))
    return structures
