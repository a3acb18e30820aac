"""What a scanner does to the truth: noise of the law of each modality, blur, slow shading."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data_shards.phantoms.grid import Grid

_STREAK_DIRECTIONS = 12


def rician(signal: np.ndarray, sigma: float, random: np.random.Generator) -> np.ndarray:
    """Magnitude of a complex signal with normal noise of ``sigma`` in both channels, as in MRI.

    The mean square is ``signal**2 + 2 * sigma**2``; in air it is the law of Rayleigh (Gudbjartsson and Patz, 1995).
    """
    return np.hypot(signal + sigma * random.normal(size=signal.shape), sigma * random.normal(size=signal.shape))


def poisson(value: np.ndarray, counts: float, random: np.random.Generator) -> np.ndarray:
    """Values measured by counting ``counts`` events per unit: the mean stays, the variance is ``value / counts``."""
    return random.poisson(np.maximum(value, 0) * counts) / counts


def transmission(line: np.ndarray, photons: float, random: np.random.Generator) -> np.ndarray:
    """Line integrals measured with ``photons`` per pixel before the body: ``-log(counted / photons)``.

    Where no photon comes through, one is taken to have.
    """
    counted = random.poisson(photons * np.exp(-line))
    return -np.log(np.maximum(counted, 1) / photons)


def streaks(shape: tuple[int, int, int], random: np.random.Generator) -> np.ndarray:
    """A field D,H,W of zero mean and unit variance whose planes H,W are crossed by straight lines, as noise in CT.

    Noise of the detector is smeared along the rays of its view by the reconstruction; here a few views do it.
    """
    depth, height, width = shape
    row_H1, column_1W = np.arange(height)[:, None] - height / 2, np.arange(width)[None] - width / 2
    reach = int(np.hypot(height, width)) + 2
    field = np.zeros(shape)
    for view in range(_STREAK_DIRECTIONS):
        angle = np.pi * (view + random.random()) / _STREAK_DIRECTIONS
        profile = random.normal(size=(depth, reach + 1))
        place = np.cos(angle) * column_1W + np.sin(angle) * row_H1 + reach / 2
        left = np.clip(place.astype(int), 0, reach - 1)
        share = np.clip(place - left, 0, 1)
        # Divided by the spread that interpolation leaves, so that the variance is 1 between two samples as well.
        between = np.hypot(share, 1 - share)
        field += profile[:, left] * ((1 - share) / between) + profile[:, left + 1] * (share / between)
    return field / _STREAK_DIRECTIONS**0.5


def blur(image: np.ndarray, fwhm_mm: float, spacing_mm: Sequence[float]) -> np.ndarray:
    """Convolution with a Gaussian of full width at half maximum ``fwhm_mm`` along each axis; borders are repeated."""
    for axis, spacing in enumerate(spacing_mm):
        sigma = fwhm_mm / 2.3548 / spacing
        reach = int(np.ceil(3 * sigma))
        if image.shape[axis] == 1 or reach == 0:
            continue
        weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
        weights /= weights.sum()
        padded = np.pad(image, [(reach, reach) if axis == other else (0, 0) for other in range(3)], mode="edge")
        length = image.shape[axis]
        pieces = (np.take(padded, range(start, start + length), axis=axis) for start in range(2 * reach + 1))
        image = sum((weight * piece for weight, piece in zip(weights, pieces, strict=True)), np.zeros(image.shape))
    return image


class Shading:
    """A slow field about 0 in the frame of the scanner: a random quadratic of zero mean over its field of view.

    Args:
        random: of the scan.
        strength: spread of the value at the border.
        field_mm: extent of the field of view in x, y, z.
    """

    def __init__(self, random: np.random.Generator, strength: float, field_mm: Sequence[float]) -> None:
        self._linear, self._square = random.uniform(-strength, strength, (2, 3))
        self._half = np.asarray(field_mm) / 2

    def __call__(self, grid: Grid) -> np.ndarray:
        """The field at each voxel, broadcast to the shape of the grid."""
        terms = zip(grid.points, self._half, self._linear, self._square, strict=True)
        return sum(
            (linear * (along / half) + square * ((along / half) ** 2 - 1 / 3) for along, half, linear, square in terms),
            np.zeros(grid.shape),
        )
