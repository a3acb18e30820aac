from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import cKDTree

from data_shards.phantoms.grid import AXIAL, CORONAL, SAGITTAL, Grid, View, Warp
from data_shards.phantoms.scene import Sampler, Structure, paint
from data_shards.phantoms.shapes import (
    Capsule,
    Grown,
    Intersection,
    Shape,
    Superquadric,
    Union,
    coverage,
    rotation,
    tube,
)
from data_shards.phantoms.waves import Folded, Rough, Waves

TURNED = rotation(x=0.4, y=-0.7, z=1.1)
BALL = Superquadric((0, 0, 0), (15, 15, 15))
SHAPES: dict[str, Shape] = {
    "ellipsoid": Superquadric((3, -2, 1), (18, 12, 9), rotation=TURNED),
    "superquadric": Superquadric((0, 2, 0), (15, 12, 10), exponent=4, rotation=TURNED),
    "capsule": Capsule((-12, 3, 0), (10, -4, 8), 7, 4),
    "tube": tube([(-15, 0, 0), (0, 8, 3), (14, -6, -4)], [6, 5, 4]),
    "intersection": Intersection(BALL, Superquadric((9, 0, 0), (15, 15, 15))),
    "difference": Intersection(BALL, Superquadric((12, 0, 0), (9, 9, 9)), outside=True),
    "grown": Grown(Superquadric((0, 0, 0), (12, 9, 9)), 4),
    "rough": Rough(BALL, Waves(np.random.default_rng(0), 20, 40, 4), 2),
    "folded": Folded(BALL, Waves(np.random.default_rng(1), 10, 20, 4), depth=5, width=0.5),
}


def cube(step: float, half: float = 26) -> Grid:
    count = round(2 * half / step)
    return Grid.around_centre(AXIAL, (2 * half,) * 3, (count,) * 3)


def still() -> Warp:
    return Warp(np.random.default_rng(0), 0.0)


@pytest.mark.parametrize("name", SHAPES)
def test_the_box_contains_the_shape(name: str) -> None:
    shape, grid = SHAPES[name], cube(1.0)
    inside = np.argwhere(shape.distance(*grid.points) < 0)
    found = np.stack([inside.min(axis=0), inside.max(axis=0)])[:, ::-1] * 1.0 - 25.5
    assert (shape.box[0] <= found[0]).all() and (found[1] <= shape.box[1]).all()


@pytest.mark.parametrize("name", ["ellipsoid", "superquadric", "capsule", "tube", "grown"])
def test_distances_near_the_surface_are_those_of_the_nearest_surface_point(name: str) -> None:
    shape = SHAPES[name]
    random = np.random.default_rng(2)
    # Points of the surface, by bisection along random rays from a point inside.
    start = np.array([[3.0, -2.0, 1.0]]) if name == "ellipsoid" else np.array([[0.0, 2.0, 1.0]])
    towards = random.normal(size=(60_000, 3))
    towards /= np.linalg.norm(towards, axis=1, keepdims=True)
    low, high = np.zeros(len(towards)), np.full(len(towards), 40.0)
    for _ in range(40):
        middle = (low + high) / 2
        inside = shape.distance(*(start + towards * middle[:, None]).T) < 0
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    surface = start + towards * low[:, None]
    some = surface[:300] + random.normal(scale=0.4, size=(300, 3))
    exact, _ = cKDTree(surface).query(some)
    claimed = shape.distance(*some.T)
    clear = np.abs(claimed) > 0.05
    assert np.median(np.abs(np.abs(claimed) - exact)[clear] / exact[clear]) < 0.1


def test_covered_voxels_add_up_to_the_volume_of_an_ellipsoid_at_any_resolution() -> None:
    ellipsoid = Superquadric((0.3, -0.7, 0.2), (18, 12, 9), rotation=TURNED)
    for step in (1.0, 2.0, 4.0):
        cover = coverage(ellipsoid.distance(*cube(step).points), step)
        # A border of this width adds about step**2 / 4 / radius**2 on a curved surface.
        assert cover.sum() * step**3 == pytest.approx(ellipsoid.volume, rel=0.002 + step**2 / 4 / 10**2)


@pytest.mark.parametrize("radius", [0.6, 1.2, 2.0])
def test_what_is_thinner_than_a_voxel_covers_its_volume_and_no_more(radius: float) -> None:
    capsule = Capsule((-20, 1.1, 0.4), (18, -1.3, 2.7), radius, radius)
    volume = np.pi * radius**2 * np.linalg.norm([38, 2.4, 2.3]) + 4 / 3 * np.pi * radius**3
    image = paint(Sampler(cube(4.0), still()), [Structure("white", capsule)], [{"air": 0.0, "white": 1.0}])[0]
    assert image.sum() * 4**3 == pytest.approx(volume, rel=0.3)


@pytest.mark.parametrize("view", [AXIAL, SAGITTAL, CORONAL])
def test_painting_by_boxes_equals_painting_everywhere(view: View) -> None:
    """The boxes only leave out work: under pose and deformation every covered voxel is painted."""
    warp = Warp(np.random.default_rng(3), 4.0, angles=(0.2, -0.1, 0.3), shift=(3.0, -2.0, 4.0))
    grid = Grid.around_centre(view, (60, 50, 56), (20, 17, 19))
    sampler = Sampler(grid, warp)
    everywhere = (slice(None),) * 3
    for shape in SHAPES.values():
        image = paint(sampler, [Structure("white", shape)], [{"air": 0.0, "white": 1.0}])[0]
        parts = shape.parts if isinstance(shape, Union) else (shape,)
        whole = [coverage(sampler.distance(part, everywhere), grid.width) * part.fill(grid.width) for part in parts]
        assert image == pytest.approx(np.max(whole, axis=0), abs=1e-12) and image.max() > 0.5


def test_a_small_shape_is_found_where_the_pose_puts_it() -> None:
    """Without a deformation the box has no slack: a pose applied the wrong way round would miss the shape."""
    warp = Warp(np.random.default_rng(5), 0.0, angles=(0.9, -0.6, 1.2), shift=(4.0, -3.0, 2.0))
    sampler = Sampler(Grid.around_centre(AXIAL, (100, 100, 100), (50, 50, 50)), warp)
    ball = Superquadric((25, -12, 18), (5, 5, 5))
    image = paint(sampler, [Structure("white", ball)], [{"air": 0.0, "white": 1.0}])[0]
    assert image.sum() * 2**3 == pytest.approx(ball.volume, rel=0.06)


def test_grids_lie_in_the_body_as_pictures_are_hung() -> None:
    """Axial: front above, right side of the patient at the left. Sagittal and coronal: head above."""
    for view, rows, columns in ((AXIAL, (1, 1), (0, 1)), (SAGITTAL, (2, -1), (1, 1)), (CORONAL, (2, -1), (0, 1))):
        grid = Grid.around_centre(view, (40, 40, 40), (4, 4, 4))
        for place, (axis, sign) in ((1, rows), (2, columns)):
            along = np.broadcast_to(grid.points[axis], grid.shape).take([0, -1], axis=place).reshape(-1)
            assert np.unique(along).tolist() == [-15, 15]
            assert np.sign(np.diff(grid.points[axis].ravel())[0]) == sign


def test_a_grid_fills_its_field() -> None:
    grid = Grid.around_centre(SAGITTAL, (120.0, 160.0, 160.0), (12, 16, 16))
    assert grid.spacing == (10.0, 10.0, 10.0) and grid.first == (-55.0, -75.0, -75.0)


def test_a_deformation_is_smooth_and_of_the_size_asked_for() -> None:
    grid = cube(4.0, half=150)
    moved = Warp(np.random.default_rng(4), 5.0).points(grid)
    for new, old in zip(moved, grid.points, strict=True):
        shift = new - old
        assert 3 < shift.std() < 7
        assert max(np.abs(np.diff(shift, axis=axis)).max() for axis in range(3)) < 4.0 * 0.6
