"""Shapes and disturbances that every phantom is drawn with, on axes from -1 to 1 at any number of pixels."""

from __future__ import annotations

import numpy as np


class Canvas:
    """A square grid of pixel centres.

    Attributes:
        y_HW: vertical coordinate of each pixel, -1 at the top.
        x_HW: horizontal coordinate of each pixel, -1 at the left.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        axis = (np.arange(size) + 0.5) / size * 2 - 1
        self.y_HW, self.x_HW = np.meshgrid(axis, axis, indexing="ij")
        self._pixel = 2 / size

    def moved(self, *, angle: float, scale: float, shift: tuple[float, float]) -> Canvas:
        """The same canvas seen by a subject that is turned (radians), scaled and shifted (x, y)."""
        other = Canvas(self.size)
        x, y = self.x_HW - shift[0], self.y_HW - shift[1]
        other.x_HW = (np.cos(angle) * x + np.sin(angle) * y) / scale
        other.y_HW = (-np.sin(angle) * x + np.cos(angle) * y) / scale
        other._pixel = self._pixel / scale
        return other

    def inside(self, distance_HW: np.ndarray, softness: float = 0.0) -> np.ndarray:
        """1 where a signed distance is negative, 0 where positive, with an edge of one pixel or ``softness``."""
        width = max(self._pixel / 2, softness)
        return 1 / (1 + np.exp(np.clip(distance_HW / width * 2, -30, 30)))

    def ellipse(
        self, x: float, y: float, width: float, height: float, *, angle: float = 0.0, softness: float = 0.0
    ) -> np.ndarray:
        """A filled ellipse with the given half axes."""
        u = np.cos(angle) * (self.x_HW - x) + np.sin(angle) * (self.y_HW - y)
        v = -np.sin(angle) * (self.x_HW - x) + np.cos(angle) * (self.y_HW - y)
        radius = np.hypot(u / width, v / height)
        return self.inside((radius - 1) * min(width, height), softness)

    def blob(self, x: float, y: float, radius: float, lobes: np.ndarray, *, softness: float = 0.0) -> np.ndarray:
        """A filled closed curve whose radius is ``radius * (1 + sum of lobes[k] * cos(k * angle + phase))``.

        Args:
            x: centre.
            y: centre.
            radius: mean radius.
            lobes: amplitude and phase of each harmonic from the second on, shape (K, 2).
            softness: width of the edge.
        """
        angle = np.arctan2(self.y_HW - y, self.x_HW - x)
        outline = np.ones_like(angle)
        for harmonic, (amplitude, phase) in enumerate(lobes, start=2):
            outline += amplitude * np.cos(harmonic * angle + phase)
        return self.inside(np.hypot(self.x_HW - x, self.y_HW - y) - radius * outline, softness)

    def texture(self, random: np.random.Generator, waves: float) -> np.ndarray:
        """A smooth random field of zero mean and unit variance with about ``waves`` periods across the image."""
        field = np.zeros_like(self.x_HW)
        for _ in range(8):
            angle, phase = random.uniform(0, 2 * np.pi, 2)
            frequency = np.pi * waves * random.uniform(0.5, 1.5)
            field += np.cos(frequency * (np.cos(angle) * self.x_HW + np.sin(angle) * self.y_HW) + phase)
        return field / 2


def bias_field(canvas: Canvas, random: np.random.Generator, strength: float) -> np.ndarray:
    """A slow multiplicative shading around 1."""
    linear_x, linear_y, square_x, square_y = random.uniform(-strength, strength, 4)
    x, y = canvas.x_HW, canvas.y_HW
    return np.exp(linear_x * x + linear_y * y + square_x * (x * x - 1 / 3) + square_y * (y * y - 1 / 3))


def to_uint8(intensity: np.ndarray) -> np.ndarray:
    """Intensities from 0 to 1 as 0 to 255; what lies outside is clipped."""
    return np.rint(np.clip(intensity, 0, 1) * 255).astype(np.uint8)
