"""Abdomen: liver, gall bladder, spleen, stomach, kidneys, pancreas, great vessels, bowel, muscles, spine."""

from __future__ import annotations

import numpy as np

from data_shards.phantoms.anatomy.skeleton import ribs, spine
from data_shards.phantoms.population import Variation
from data_shards.phantoms.scene import Anatomy, Structure
from data_shards.phantoms.shapes import Grown, Intersection, Shape, Superquadric, Union, Vector, rotation, tube

_LOOPS = 16


def build(vary: Variation, age_years: float, detail: float) -> Anatomy:
    """The trunk of one subject from the dome of the liver to the pelvis; the origin is before the spine.

    Args:
        vary: random numbers of the subject.
        age_years: widens the aorta and adds fat under the skin.
        detail: share of the bowel loops that are drawn.
    """
    old = (age_years - 20) / 70
    width, depth = vary.between(142, 168), vary.between(98, 118)
    body = Superquadric((0, 0, 0), (width, depth, 500), exponent=2.5)
    fat = vary.between(10, 22) + 6 * old
    wall, space = Grown(body, -fat), Grown(body, -fat - vary.between(9, 14))
    liver = _liver(vary, Grown(space, -3))
    back = vary.between(32, 38)
    structures = [
        Structure("skin", body),
        Structure("fat", Grown(body, -2)),
        Structure("muscle", wall),
        Structure("fat", space),
        *_back_muscles(vary, back, wall),
        *spine(vary, back, -160, 160),
        ribs(vary, width - fat - 12, depth - fat - 10, 0, 20, 200),
        *_bowel(vary, space, detail),
        Structure("organ", tube([(-24, -2, 12), (0, -8, 20), (30, -2, 26), (66, 16, 34)], [12, 8, 9, 8])),
        *_stomach(vary),
        Structure("liver", liver),
        *_liver_vessels(vary, liver),
        Structure("fluid", Superquadric(vary.around((-42, -42, 14), 4), vary.scaled((13, 17, 20), 0.15))),
        _spleen(vary),
        *_kidneys(vary),
        Structure("blood", tube([(10, 18, 150), (7, 20, 0), (5, 26, -75)], vary.between(8, 10) * (1 + 0.35 * old))),
        Structure("blood", tube([(-20, 16, 150), (-20, 18, 0), (-14, 28, -75)], vary.between(9, 11))),
    ]
    return Anatomy(structures, body, {"liver": liver})


def _spleen(vary: Variation) -> Structure:
    centre, radii = vary.around((94, 34, 52), 4), vary.scaled((22, 42, 44), 0.15)
    return Structure("spleen", Superquadric(centre, radii, rotation=rotation(z=-0.4)))


def _liver(vary: Variation, space: Shape) -> Shape:
    """Right lobe under the ribs, left lobe across the middle."""
    centre, radii = vary.around((-66, -2, 50), 3), vary.scaled((58, 72, 62), 0.08)
    right = Superquadric(centre, radii, rotation=rotation(z=0.15), exponent=2.3)
    left = Superquadric(vary.around((-4, -44, 60), 4), vary.scaled((58, 30, 34), 0.12), rotation=rotation(y=0.2))
    return Union([Intersection(right, space), Intersection(left, space)])


def _liver_vessels(vary: Variation, liver: Shape) -> list[Structure]:
    """Portal vein and hepatic veins."""
    hilum = vary.around((-34, -8, 34), 3)
    courses: list[tuple[list[Vector], list[float]]] = [([(0, 2, 22), hilum], [7, 7])]
    for end in ((-92, 10, 40), (-70, 44, 52), (-62, -40, 62), (-84, -14, 84), (8, -44, 60)):
        courses.append(([hilum, vary.around(end, 10)], [5, 1.5]))
    for end in ((-96, 4, 64), (-56, -36, 76), (-10, -36, 74)):
        courses.append(([(-20, 10, 96), vary.around(end, 10)], [5, 1.5]))
    vessels = [part for points, radii in courses for part in tube(points, radii).parts]
    return [Structure("blood", Union(vessels), within=liver)]


def _stomach(vary: Variation) -> list[Structure]:
    """A bent sack with fluid, and gas above it, which is in front when lying."""
    course = [vary.around(point, 5) for point in ((54, 8, 92), (62, -22, 60), (42, -46, 28), (6, -44, 14))]
    radii = [24, 30, 22, 12]
    hollow = tube(course, [radius - 4 for radius in radii])
    gas = Superquadric((50, -90, 50), (70, vary.between(36, 52), 70))
    return [
        Structure("bowel", tube(course, radii)),
        Structure("chyme", hollow),
        Structure("gas", hollow, within=gas),
    ]


def _kidneys(vary: Variation) -> list[Structure]:
    """Cortex, medulla, and the sinus with fat and urine."""
    structures = []
    for side, height in ((-1, -14.0), (1, -4.0)):
        centre = vary.around((side * 58, 40, height), 4)
        radii, turn = vary.scaled((26, 23, 50), 0.1), rotation(y=side * 0.25, z=side * 0.5)
        sinus = centre + np.array((-side * 10.0, -6.0, 0.0))
        structures += [
            Structure("cortex", Superquadric(centre, radii, rotation=turn)),
            Structure("medulla", Superquadric(centre, radii - 8, rotation=turn)),
            Structure("fat", Superquadric(sinus, (13, 8, 22), rotation=turn)),
            Structure("fluid", Superquadric(sinus, (6, 4, 12), rotation=turn)),
        ]
    return structures


def _back_muscles(vary: Variation, back: float, wall: Shape) -> list[Structure]:
    """Psoas beside the spine and the long muscles behind it."""
    structures = []
    for side in (-1, 1):
        psoas = tube([(side * 26, back, 30), (side * 40, back + 2, -40), (side * 52, back - 10, -110)], [10, 19, 22])
        erector = Superquadric((side * 32, back + 40, 0), (27, vary.between(16, 21), 400), exponent=3)
        structures += [Structure("muscle", psoas), Structure("muscle", Intersection(erector, wall))]
    return structures


def _bowel(vary: Variation, space: Shape, detail: float) -> list[Structure]:
    """Loops of small bowel that wander through the lower front, and the colon at the sides; filled or with gas."""
    inner = Grown(space, -2)
    courses: list[tuple[list[np.ndarray], float, str]] = []
    for side in (-1, 1):
        points = [vary.around((side * 96, 10, z), 8) for z in (-110, -70, -30, 8)]
        courses.append((points, vary.between(14, 20), "gas" if side < 0 else "chyme"))
    for number in range(_LOOPS):
        place = vary.random.uniform((-70, -52, -100), (70, -2, 0))
        points = [place]
        for _ in range(4):
            place = np.clip(place + vary.random.normal(0, 24, 3), (-80, -70, -110), (80, 4, 4))
            points.append(place)
        radius, gas = vary.between(9, 14), vary.random.random() < 0.3
        if number < round(_LOOPS * (0.4 + 0.6 * detail)):
            courses.append((points, radius, "gas" if gas else "chyme"))
    structures = []
    for points, radius, content in courses:
        structures.append(Structure("bowel", tube(points, radius), within=inner))
        structures.append(Structure(content, tube(points, radius - 3), within=Grown(inner, -3)))
    return structures
