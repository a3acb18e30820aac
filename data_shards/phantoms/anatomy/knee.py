"""Knee: femur, tibia, fibula, patella with cortex and marrow, cartilage, menisci, ligaments, muscles, fat, vessels."""

from __future__ import annotations

import numpy as np

from data_shards.phantoms.population import Variation
from data_shards.phantoms.scene import Anatomy, Structure
from data_shards.phantoms.shapes import Grown, Intersection, Shape, Superquadric, Union, rotation, tube


def build(vary: Variation, age_years: float, detail: float) -> Anatomy:
    """The knee of one subject; the origin is between the condyles.

    Args:
        vary: random numbers of the subject.
        age_years: thins the cartilage.
        detail: unused: a knee has no folds to leave out.
    """
    del detail
    old = (age_years - 20) / 70
    leg = Superquadric((0, 8, 0), (vary.between(58, 68), vary.between(60, 70), 400), exponent=2.3)
    femur, condyles, tibia, fibula, patella = _bones(vary)
    bones = Union([*femur.parts, *tibia.parts, *fibula.parts, *patella.parts])
    thickness, cortex = vary.between(2.2, 3.2) * (1.15 - 0.5 * old), vary.between(1.6, 2.4)
    plateau_top = tibia.parts[0].box[1, 2]
    structures = [
        Structure("skin", leg),
        Structure("fat", Grown(leg, -2)),
        *_muscles(vary),
        Structure("fluid", Grown(Intersection(condyles, Superquadric((0, -4, -6), (44, 40, 22))), thickness + 1.2)),
        Structure("fluid", tube([(0, -32, 12), (0, -26, 42)], [4, vary.between(1, 4)])),
        Structure("cartilage", Grown(Intersection(condyles, Superquadric((0, -4, -8), (44, 38, 24))), thickness)),
        Structure("cartilage", Grown(patella, thickness * 0.8)),
        Structure("bone", bones),
        Structure("cartilage", _plateaus(vary, plateau_top, thickness)),
        Structure("fibre", _menisci(vary, plateau_top + thickness)),
        Structure("marrow", Union([Grown(part, -cortex) for part in bones.parts])),
        *_ligaments(vary),
        Structure("blood", tube([vary.around((-4, 48, 90), 4), (0, 42, 0), vary.around((3, 46, -90), 4)], 4.5)),
        Structure("blood", tube([vary.around((6, 54, 90), 4), (8, 49, 0), vary.around((9, 52, -90), 4)], 5)),
    ]
    joint = Superquadric((0, 0, -8), (60, 50, 46))
    marrow = Intersection(Union([Grown(part, -cortex) for part in (*femur.parts, *tibia.parts)]), joint)
    behind = Intersection(Superquadric((14, 46, -20), (24, 16, 36)), Grown(bones, 4), outside=True)
    return Anatomy(structures, leg, {"marrow": marrow, "behind the joint": behind})


def _bones(vary: Variation) -> tuple[Union, Union, Union, Union, Union]:
    """Femur, its part in the joint, tibia, fibula, patella."""
    gap = vary.between(20, 24)
    condyles: list[Shape] = [
        Superquadric(vary.around((side * gap, 6, 4), 1.5), vary.scaled((18, 31, 24), 0.07)) for side in (-1, 1)
    ]
    # The trochlea joins the condyles in front, the notch behind stays open.
    trochlea = Superquadric((0, -10, 14), vary.scaled((32, 20, 20), 0.06))
    shaft = tube([(0, 0, 26), (0, -4, 60), (0, -6, 120)], [27, 17, 14])
    top = vary.between(-22, -20)
    plateau = Superquadric((0, 2, top - 14), vary.scaled((40, 26, 14), 0.06), exponent=3.5)
    stem = tube([(0, 0, top - 24), (0, 1, -66), (0, 4, -130)], [23, 16, 12])
    fibula = tube([(34, 20, -40), (36, 22, -54), (34, 22, -130)], [8, 6, 5])
    patella = Superquadric(vary.around((0, -46, 16), 2), vary.scaled((20, 9.5, 20), 0.1), exponent=2.5)
    femur = Union([*condyles, trochlea, *shaft.parts])
    return femur, Union([*condyles, trochlea]), Union([plateau, *stem.parts]), fibula, Union([patella])


def _plateaus(vary: Variation, top: float, thickness: float) -> Union:
    """Cartilage on both halves of the tibia."""
    return Union([Superquadric((side * 20, 2, top), (17, vary.between(18, 21), thickness)) for side in (-1, 1)])


def _menisci(vary: Variation, height: float) -> Union:
    """A C on each half of the tibia, open to the middle; in a sagittal slice it is a pair of dark wedges."""
    parts: list[Shape] = []
    for side in (-1, 1):
        angle = np.linspace(-0.75 * np.pi, 0.75 * np.pi, 9)
        radii = vary.scaled((16, 20), 0.08)
        points = [(side * (20 + radii[0] * np.cos(a)), 2 + radii[1] * np.sin(a), height + 1) for a in angle]
        parts += tube(points, vary.between(3.2, 4.2)).parts
    return Union(parts)


def _ligaments(vary: Variation) -> list[Structure]:
    """Cruciates, patellar and quadriceps tendons: dark bands."""
    courses = [
        ([(0, 22, 2), (2, 24, -14), (2, 24, -32)], 3.8),
        ([(6, 16, 4), (0, 2, -10), (-4, -10, -24)], 3.0),
        ([(0, -48, 0), (0, -42, -24), (0, -32, -50)], vary.between(2.5, 3.5)),
        ([(0, -50, 34), (0, -44, 62), (0, -40, 110)], vary.between(2.8, 4.0)),
    ]
    return [Structure("fibre", tube(points, radius)) for points, radius in courses]


def _muscles(vary: Variation) -> list[Structure]:
    """Thigh behind and before the femur, and calf."""
    bellies = [
        ((-24, 38, 74), (20, 20, 74)),
        ((22, 40, 76), (20, 19, 70)),
        ((0, 22, 90), (24, 12, 52)),
        ((0, -28, 96), (34, 17, 56)),
        ((-20, 44, -62), (19, 18, 72)),
        ((20, 44, -66), (19, 18, 70)),
        ((0, 26, -74), (34, 10, 52)),
        ((34, -6, -88), (14, 16, 52)),
    ]
    turn = rotation(x=vary.between(-0.05, 0.05))
    return [
        Structure("muscle", Superquadric(vary.around(centre, 2), vary.scaled(radii, 0.1), rotation=turn))
        for centre, radii in bellies
    ]
