"""Implicit shapes in millimetres: a signed distance that is negative inside, and a box that contains the shape.

Coordinates are those of DICOM: x grows to the left of the patient, y to the back, z to the head. Distances are exact to
first order at the surface, which is where partial volume needs them.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from functools import cached_property

import numpy as np

Vector = Sequence[float] | np.ndarray


class Shape(abc.ABC):
    """A solid in space."""

    @abc.abstractmethod
    def distance(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Signed distance in mm of each point, negative inside; the coordinates broadcast against each other."""

    @property
    @abc.abstractmethod
    def box(self) -> np.ndarray:
        """Lowest and highest x, y, z of the shape, shape (2, 3)."""

    def fill(self, width: float) -> float:
        """What coverage by voxels of ``width`` mm is multiplied by: below 1 for a shape thinner than a voxel."""
        return 1.0


class Superquadric(Shape):
    """``|x/a|^e + |y/b|^e + |z/c|^e <= 1``: an ellipsoid for exponent 2, nearer to a box for higher ones.

    Args:
        centre: of the shape.
        radii: half axes a, b, c.
        exponent: e.
        rotation: its columns are the directions of the half axes, shape (3, 3); none is along x, y, z.
    """

    def __init__(
        self, centre: Vector, radii: Vector, *, exponent: float = 2.0, rotation: np.ndarray | None = None
    ) -> None:
        self.centre = np.asarray(centre, dtype=np.float64)
        self.radii = np.asarray(radii, dtype=np.float64)
        self.exponent = exponent
        self.rotation = rotation

    def distance(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """See :meth:`Shape.distance`; ``(level - 1) / |gradient of level|``."""
        x, y, z = x - self.centre[0], y - self.centre[1], z - self.centre[2]
        if self.rotation is not None:
            x, y, z = (column[0] * x + column[1] * y + column[2] * z for column in self.rotation.T)
        level: np.ndarray | float = 0.0
        slope: np.ndarray | float = 0.0
        for along, radius in zip((x, y, z), self.radii, strict=True):
            if self.exponent == 2.0:
                square = (along / radius) ** 2
                level, slope = level + square, slope + square / radius**2
            else:
                relative = np.abs(along / radius)
                power = relative ** (self.exponent - 1)
                level, slope = level + power * relative, slope + (power / radius) ** 2
        norm = np.asarray(level) ** (1 / self.exponent)
        gradient = np.sqrt(slope) * np.maximum(norm, 1e-9) ** (1 - self.exponent)
        # Near the centre the gradient of the level is no measure of distance; the smallest radius bounds it.
        return np.maximum((norm - 1) / np.maximum(gradient, 1e-9), -self.radii.min())

    @cached_property
    def box(self) -> np.ndarray:
        """See :attr:`Shape.box`."""
        half = self.radii
        if self.rotation is not None:
            half = np.abs(self.rotation) @ half if self.exponent != 2.0 else np.sqrt(self.rotation**2 @ half**2)
        return np.stack([self.centre - half, self.centre + half])

    def fill(self, width: float) -> float:
        """See :meth:`Shape.fill`."""
        return _thin(self.radii.sum() / self.radii.prod(), self.radii.min(), width)

    @property
    def volume(self) -> float:
        """Volume of an ellipsoid in mm3; only for exponent 2."""
        return float(4 / 3 * np.pi * self.radii.prod())


class Capsule(Shape):
    """All points within a radius of a line segment; the radius changes evenly from its start to its end."""

    def __init__(self, start: Vector, end: Vector, start_radius: float, end_radius: float) -> None:
        self.start = np.asarray(start, dtype=np.float64)
        self.along = np.asarray(end, dtype=np.float64) - self.start
        self.start_radius, self.end_radius = start_radius, end_radius

    @staticmethod
    def distances(capsules: Sequence[Capsule], x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """:meth:`distance` of several at once, along a new first axis: on few points, calls cost more than sums."""
        rows = np.array([[*each.start, *each.along, each.start_radius, each.end_radius] for each in capsules])
        *place, start_radius, end_radius = rows.T.reshape(8, -1, *(1,) * x.ndim)
        return _to_segment(place[:3], place[3:], start_radius, end_radius, x, y, z)

    def distance(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """See :meth:`Shape.distance`."""
        return _to_segment(self.start, self.along, self.start_radius, self.end_radius, x, y, z)

    @cached_property
    def box(self) -> np.ndarray:
        """See :attr:`Shape.box`."""
        ends = np.stack([self.start, self.start + self.along])
        radii = np.array([[self.start_radius], [self.end_radius]])
        return np.stack([(ends - radii).min(axis=0), (ends + radii).max(axis=0)])

    def fill(self, width: float) -> float:
        """See :meth:`Shape.fill`."""
        radius = (self.start_radius + self.end_radius) / 2
        return _thin(1 / radius**2, radius, width)


class Union(Shape):
    """Everything that is in at least one part."""

    def __init__(self, parts: Sequence[Shape]) -> None:
        self.parts = tuple(parts)

    def distance(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """See :meth:`Shape.distance`."""
        nearest = self.parts[0].distance(x, y, z)
        for part in self.parts[1:]:
            nearest = np.minimum(nearest, part.distance(x, y, z))
        return nearest

    @cached_property
    def boxes(self) -> np.ndarray:
        """The box of each part, shape (N, 2, 3)."""
        return np.stack([part.box for part in self.parts])

    @cached_property
    def box(self) -> np.ndarray:
        """See :attr:`Shape.box`."""
        return np.stack([self.boxes[:, 0].min(axis=0), self.boxes[:, 1].max(axis=0)])


class Intersection(Shape):
    """What is in ``shape`` and in ``other``, or not in ``other`` when ``outside``."""

    def __init__(self, shape: Shape, other: Shape, *, outside: bool = False) -> None:
        self.shape, self.other, self.outside = shape, other, outside

    def distance(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """See :meth:`Shape.distance`."""
        other = self.other.distance(x, y, z)
        return np.maximum(self.shape.distance(x, y, z), -other if self.outside else other)

    @cached_property
    def box(self) -> np.ndarray:
        """See :attr:`Shape.box`."""
        if self.outside:
            return self.shape.box
        ours, theirs = self.shape.box, self.other.box
        return np.stack([np.maximum(ours[0], theirs[0]), np.minimum(ours[1], theirs[1])])

    def fill(self, width: float) -> float:
        """See :meth:`Shape.fill`."""
        return self.shape.fill(width)


class Grown(Shape):
    """``shape`` with its surface moved outwards by ``by`` mm; inwards when negative."""

    def __init__(self, shape: Shape, by: float) -> None:
        self.shape, self.by = shape, by

    def distance(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """See :meth:`Shape.distance`."""
        return self.shape.distance(x, y, z) - self.by

    @cached_property
    def box(self) -> np.ndarray:
        """See :attr:`Shape.box`."""
        return self.shape.box + np.array([[-1.0], [1.0]]) * max(self.by, 0)


def tube(points: Sequence[Vector], radii: float | Sequence[float]) -> Union:
    """A bent tube through ``points`` with the given radius, or one radius per point."""
    values = [radii] * len(points) if isinstance(radii, int | float) else list(radii)
    ends = zip(points, points[1:], values, values[1:], strict=False)
    return Union([Capsule(*each) for each in ends])


def rotation(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> np.ndarray:
    """Rotation matrix for turns about the axes x, y, z in that order, in radians."""
    cosines, sines = np.cos([x, y, z]), np.sin([x, y, z])
    about_x = np.array([[1, 0, 0], [0, cosines[0], -sines[0]], [0, sines[0], cosines[0]]])
    about_y = np.array([[cosines[1], 0, sines[1]], [0, 1, 0], [-sines[1], 0, cosines[1]]])
    about_z = np.array([[cosines[2], -sines[2], 0], [sines[2], cosines[2], 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def coverage(distance: np.ndarray, width: float) -> np.ndarray:
    """The share of a voxel of ``width`` mm that is inside, from the distance of its centre: partial volume."""
    return np.minimum(np.maximum(0.5 - distance / width, 0), 1)


def _to_segment(
    start: Sequence[np.ndarray] | np.ndarray,
    along: Sequence[np.ndarray] | np.ndarray,
    start_radius: np.ndarray | float,
    end_radius: np.ndarray | float,
    x: np.ndarray,
    y: np.ndarray,
    z: np.ndarray,
) -> np.ndarray:
    x, y, z = x - start[0], y - start[1], z - start[2]
    a, b, c = along
    share = np.minimum(np.maximum((a * x + b * y + c * z) / np.maximum(a * a + b * b + c * c, 1e-9), 0), 1)
    axis = np.sqrt((x - share * a) ** 2 + (y - share * b) ** 2 + (z - share * c) ** 2)
    return axis - (start_radius + share * (end_radius - start_radius))


def _thin(curvature: float, radius: float, width: float) -> float:
    """What :func:`coverage` is multiplied by, so that it adds up to the volume of a shape thinner than a voxel.

    A border of ``width`` mm adds ``width**2 / 12 * curvature`` of the volume; the middle of a thick shape stays 1.

    Args:
        curvature: sum over pairs of half axes of ``1 / (a * b)``: ``3 / r**2`` for a ball, ``1 / r**2`` for a rod.
        radius: the smallest half axis.
        width: of a voxel.
    """
    thinness = min(1.0, max(0.0, 2 - 2 * radius / width))
    return 1 - thinness * (1 - 1 / (1 + curvature * width**2 / 12))
