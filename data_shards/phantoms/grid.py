"""Where the voxels of an image lie in the patient, and how a patient is turned and deformed."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from data_shards.phantoms.shapes import rotation
from data_shards.phantoms.waves import Waves

# Which axis of the patient (0 x, 1 y, 2 z) each axis D, H, W of the array follows, and in which direction.
AXIAL = ((2, 1), (1, 1), (0, 1))
SAGITTAL = ((0, 1), (2, -1), (1, 1))
CORONAL = ((1, 1), (2, -1), (0, 1))
View = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
Box = tuple[slice, ...]


@dataclass(frozen=True)
class Grid:
    """Voxel centres on three axes of the patient.

    Attributes:
        view: one of :data:`AXIAL`, :data:`SAGITTAL`, :data:`CORONAL`.
        first: position in mm of the first voxel along D, H, W, in the direction of the axis of the array.
        spacing: mm between voxels along D, H, W.
        shape: number of voxels along D, H, W.
    """

    view: View
    first: tuple[float, float, float]
    spacing: tuple[float, float, float]
    shape: tuple[int, int, int]

    @classmethod
    def around_centre(cls, view: View, field_mm: tuple[float, float, float], shape: tuple[int, int, int]) -> Grid:
        """A grid that fills ``field_mm`` (D, H, W) around the origin."""
        spacing = tuple(field / count for field, count in zip(field_mm, shape, strict=True))
        first = tuple(-field / 2 + step / 2 for field, step in zip(field_mm, spacing, strict=True))
        return cls(view, first, spacing, shape)  # type: ignore[arg-type]  # tuples of three

    def plane(self, position_mm: float) -> Grid:
        """The slice of one voxel thickness at ``position_mm`` along D."""
        return Grid(self.view, (position_mm, *self.first[1:]), self.spacing, (1, *self.shape[1:]))

    @property
    def width(self) -> float:
        """Edge of the cube that has the volume of a voxel, in mm."""
        return float(np.prod(self.spacing) ** (1 / 3))

    @cached_property
    def points(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """x, y, z of the voxels, as arrays that broadcast to the shape of the grid."""
        found: dict[int, np.ndarray] = {}
        for place, (axis, sign) in enumerate(self.view):
            along = sign * (self.first[place] + self.spacing[place] * np.arange(self.shape[place]))
            found[axis] = along.reshape([-1 if other == place else 1 for other in range(3)])
        return found[0], found[1], found[2]

    def within(self, low_N3: np.ndarray, high_N3: np.ndarray) -> list[Box | None]:
        """The part of the array that lies in each box of x, y, z; None for a box beside the grid."""
        axes, signs = np.array([axis for axis, _ in self.view]), np.array([sign for _, sign in self.view])
        ends = np.sort(np.stack([low_N3[:, axes], high_N3[:, axes]]) * signs, axis=0)
        places = (ends - self.first) / self.spacing
        # One voxel more on each side: its centre is outside, part of it may be inside.
        begin = np.clip(np.floor(places[0]), 0, self.shape).astype(int)
        end = np.clip(np.ceil(places[1]) + 1, 0, self.shape).astype(int)
        return [
            tuple(map(slice, one, other)) if all(map(operator.lt, one, other)) else None
            for one, other in zip(begin.tolist(), end.tolist(), strict=True)
        ]


class Warp:
    """Takes a point of the scanner to the point of the model anatomy that is found there.

    ``q = R (p - shift) + deformation(p)``: a rigid pose, and a smooth displacement of a few waves for each axis.

    Args:
        random: where the deformation of the subject comes from.
        deformation_mm: typical displacement.
        angles: turns of the pose about x, y, z in radians.
        shift: of the pose in mm.
    """

    WAVES = 3
    SHORTEST, LONGEST = 120.0, 300.0

    def __init__(
        self,
        random: np.random.Generator,
        deformation_mm: float,
        *,
        angles: tuple[float, float, float] = (0.0, 0.0, 0.0),
        shift: tuple[float, float, float] = (0.0, 0.0, 0.0),
    ) -> None:
        self._rotation = rotation(*angles)
        self._shift = np.array(shift)
        self._deformation = [Waves(random, self.SHORTEST, self.LONGEST, self.WAVES) for _ in range(3)]
        self._amount = deformation_mm

    def points(self, grid: Grid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """x, y, z in the model anatomy of every voxel, each of the shape of the grid."""
        scanner = grid.points
        x, y, z = (along - shift for along, shift in zip(scanner, self._shift, strict=True))
        turned = []
        for row, waves in zip(self._rotation, self._deformation, strict=True):
            along = row[0] * x + row[1] * y + row[2] * z
            turned.append(along + self._amount * waves(*scanner) if self._amount else along)
        return turned[0], turned[1], turned[2]

    def boxes(
        self, low_N3: np.ndarray, high_N3: np.ndarray, margin_N1: np.ndarray | float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Boxes of the scanner that surely contain boxes of the model, ``margin_N1`` mm wider on each side."""
        # |sum of K sines| sqrt(2 / K) is at most sqrt(2 K).
        reach = margin_N1 + self._amount * (2 * self.WAVES) ** 0.5
        centre, half = (low_N3 + high_N3) / 2, (high_N3 - low_N3) / 2 + reach
        centre = centre @ self._rotation + self._shift
        half = half @ np.abs(self._rotation)
        return centre - half, centre + half
