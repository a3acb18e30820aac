"""Smooth random fields from a few plane waves, and the shapes that are folded or roughened by them."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from data_shards.phantoms.shapes import Shape


class Waves:
    """A field of zero mean and about unit variance: ``sqrt(2 / K) * sum of sin(k . p + phase)``.

    Args:
        random: where directions, lengths and phases come from.
        shortest: shortest wavelength in mm.
        longest: longest wavelength in mm.
        count: K, the number of waves.
    """

    def __init__(self, random: np.random.Generator, shortest: float, longest: float, count: int) -> None:
        direction = random.normal(size=(count, 3))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        self._vectors = direction * (2 * np.pi / random.uniform(shortest, longest, (count, 1)))
        self._phases = random.uniform(0, 2 * np.pi, count)
        self._amplitude = (2 / count) ** 0.5

    def __call__(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """The field at each point; the coordinates broadcast against each other."""
        total: np.ndarray | float = 0.0
        for vector, phase in zip(self._vectors, self._phases, strict=True):
            total = total + np.sin(vector[0] * x + vector[1] * y + (vector[2] * z + phase))
        return np.asarray(total) * self._amplitude


class Rough(Shape):
    """``shape`` with a surface that ``waves`` move in and out by about ``amplitude`` mm."""

    def __init__(self, shape: Shape, waves: Waves, amplitude: float) -> None:
        self.shape, self.waves, self.amplitude = shape, waves, amplitude

    def distance(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """See :meth:`Shape.distance`."""
        inner = self.shape.distance(x, y, z)
        return inner + self.amplitude * np.clip(self.waves(x, y, z), -2, 2) if self.amplitude else inner

    @cached_property
    def box(self) -> np.ndarray:
        """See :attr:`Shape.box`."""
        return self.shape.box + np.array([[-2.0], [2.0]]) * self.amplitude

    def fill(self, width: float) -> float:
        """See :meth:`Shape.fill`."""
        return self.shape.fill(width)


class Folded(Shape):
    """``shape`` with grooves of ``depth`` mm along the surfaces where ``waves`` are zero, as the sulci of a cortex.

    Args:
        shape: what is folded.
        waves: their zero surfaces meet the shape in the grooves.
        depth: of a groove in mm.
        width: of a groove, in units of the field.
        inset: how far the surface is moved inwards besides, in mm.
    """

    def __init__(self, shape: Shape, waves: Waves, *, depth: float, width: float, inset: float = 0.0) -> None:
        self.shape, self.waves, self.depth, self.width, self.inset = shape, waves, depth, width, inset

    def distance(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """See :meth:`Shape.distance`."""
        smooth = self.shape.distance(x, y, z) + self.inset
        return smooth + self.depth * np.exp(-((self.waves(x, y, z) / self.width) ** 2)) if self.depth else smooth

    @property
    def box(self) -> np.ndarray:
        """See :attr:`Shape.box`."""
        return self.shape.box
