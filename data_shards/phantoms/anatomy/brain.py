"""Brain: scalp, skull, folded cortex, white matter, ventricles that widen with age, nuclei, cerebellum, stem, eyes."""

from __future__ import annotations

from data_shards.phantoms.population import Variation
from data_shards.phantoms.scene import Anatomy, Structure
from data_shards.phantoms.shapes import Grown, Intersection, Shape, Superquadric, Union, Vector, rotation, tube
from data_shards.phantoms.waves import Folded, Waves


def build(vary: Variation, age_years: float, detail: float) -> Anatomy:
    """The head of one subject; the origin is in its middle.

    Args:
        vary: random numbers of the subject.
        age_years: widens ventricles and sulci.
        detail: 0 draws a smooth brain, 1 one with deep folds.
    """
    old = (age_years - 20) / 70
    width, length = vary.between(70, 78), vary.between(90, 100)
    head = Superquadric((0, 0, -8), (width, length, vary.between(94, 102)), exponent=2.2)
    skull, cavity = Grown(head, -vary.between(5, 8)), Grown(head, -vary.between(12, 15))
    brain = Superquadric((0, 2, 8), (width - 16, length - 18, vary.between(66, 72)), exponent=2.6)
    sulci = Waves(vary.random, 16, 30, 10)
    deep, wide = detail * (26 + 6 * old), 0.22 + 0.12 * old
    cortex = Folded(brain, sulci, depth=deep, width=wide)
    white = Folded(brain, sulci, depth=0.95 * deep, width=0.7, inset=4.5)
    ventricles = _ventricles(vary, 0.6 + 1.1 * old)
    structures = [
        Structure("skin", head),
        Structure("fat", Grown(head, -2.5)),
        Structure("bone", skull),
        *_face(vary, length),
        Structure("fluid", cavity),
        Structure("muscle", Intersection(cavity, Superquadric((0, -30, -100), (90, 90, 52)))),
        *_hindbrain(vary, detail),
        Structure("grey", cortex),
        Structure("white", white),
        Structure("fluid", _fissures(vary, brain, width, 1.0 + 1.2 * old)),
        *_nuclei(vary),
        Structure("fluid", ventricles),
    ]
    upper = Intersection(Grown(brain, -6), Superquadric((0, 0, 70), (100, 100, 85)))
    inner = Intersection(upper, Grown(ventricles, 2), outside=True)
    return Anatomy(structures, head, {"white matter": inner})


def _ventricles(vary: Variation, size: float) -> Union:
    """Both lateral ventricles with their horns, the third and the fourth."""
    parts: list[Shape] = []
    for side in (-1, 1):
        own = size * vary.between(0.85, 1.15)
        course = [(9, -36, 12), (9, -18, 21), (12, 8, 25), (22, 32, 17), (17, 56, 11)]
        body = [vary.around((side * x, y, z), 1.5) for x, y, z in course]
        parts += tube(body, [3.5 * own, 5.5 * own, 5 * own, 6.5 * own, 2.5 * own]).parts
        horn: list[Vector] = [body[3], (side * 34, 14, -6), (side * 31, -8, -13)]
        parts += tube(horn, [4 * own, 2.5 * own, 2 * own]).parts
    parts.append(Superquadric(vary.around((0, 2, 3), 1), (1.8 * size, 13, 8)))
    parts.append(Superquadric((0, 34, -34), (6 * size**0.5, 5, 8)))
    return Union(parts)


def _fissures(vary: Variation, brain: Shape, width: float, thickness: float) -> Union:
    """The gap between the hemispheres, above and before and behind the corpus callosum, and the Sylvian fissures."""
    midline = Superquadric((0, 0, 30), (thickness, 140, 90), exponent=8)
    core = Superquadric((0, 2, 8), (90, 46, 30))
    parts: list[Shape] = [Intersection(midline, core, outside=True)]
    for side in (-1, 1):
        centre = vary.around((side * (width - 26), -6, 3), 3)
        parts.append(Superquadric(centre, (13, 24, 1.6 * thickness), rotation=rotation(x=-0.35, y=side * 0.2)))
    return Union([Intersection(part, Grown(brain, 2)) for part in parts])


def _nuclei(vary: Variation) -> list[Structure]:
    """Caudate, lentiform nucleus and thalamus on both sides."""
    structures = []
    for side in (-1, 1):
        turn = rotation(z=side * 0.3)
        for centre, radii in (
            ((14, -20, 13), (4.5, 9, 9)),
            ((24, -6, 5), (5.5, 16, 9)),
            ((11, 11, 7), (7.5, 12, 8)),
        ):
            place = vary.around((side * centre[0], centre[1], centre[2]), 1.5)
            structures.append(Structure("nucleus", Superquadric(place, vary.scaled(radii, 0.15), rotation=turn)))
    return structures


def _hindbrain(vary: Variation, detail: float) -> list[Structure]:
    """Cerebellum with fine folia, and the stem."""
    lobes = [Superquadric(vary.around((side * 22, 48, -44), 2), vary.scaled((30, 28, 21), 0.08)) for side in (-1, 1)]
    cerebellum = Union(lobes)
    folia = Waves(vary.random, 8, 12, 4)
    return [
        Structure("grey", Folded(cerebellum, folia, depth=5 * detail, width=0.3)),
        Structure("white", Folded(Grown(cerebellum, -5), folia, depth=5 * detail, width=0.8)),
        Structure("white", tube([(0, 8, -15), (0, 14, -40), (0, 26, -90)], [15, 14, 8])),
    ]


def _face(vary: Variation, length: float) -> list[Structure]:
    """Orbits with eyes, and the nasal cavity."""
    structures = []
    for side in (-1, 1):
        x, y = side * vary.between(29, 33), -length + 34
        structures += [
            Structure("fat", Superquadric((x, y + 4, -40), (18, 24, 17))),
            Structure("fluid", Superquadric((x, y - 6, -40), (12, 12, 12))),
            Structure("muscle", tube([(x, y + 6, -40), (side * 12, y + 32, -36)], 2.2)),
        ]
    structures.append(Structure("air", Superquadric((0, -length + 30, -60), (13, 22, 26), exponent=3)))
    return structures
