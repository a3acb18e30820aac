"""Images on another grid: separable linear interpolation, after a Gaussian where the new grid is coarser.

The centre of the field of view stays where it is, and so do its borders when the new voxels fill it: voxel ``i`` of
``n`` covers ``[i, i + 1]``, which other software calls ``align_corners=False``. Beyond the border the image goes on
with its outermost value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.sparse import csr_array

from data_shards.prepare.grid import check_result, moved, per_axis, some_or_none
from data_shards.sample import Image
from data_shards.support.errors import DataError

# The Gaussian is cut off here; its tails hold less than one part in ten thousand.
_CUT_SIGMAS = 4.0
# Grids that differ by less than this everywhere, in voxels, are the same one: headers hold spacings as float32.
_SAME_GRID = 1e-3
# Work is done in pieces of about this size, so that no float64 copy of a whole volume is held.
_PIECE_BYTES = 8 << 20
_WORKSPACE_BYTES = 2 << 30


def to_spacing(image: Image, spacing_mm: float | Sequence[float], *, nearest: bool = False) -> Image:
    """The image with voxels ``spacing_mm`` apart, as many as fit its field of view best, at least one per axis.

    Args:
        image: any; its spacing must be known.
        spacing_mm: one number, or one for each spatial axis.
        nearest: take the nearest voxel, as class ids need it, instead of interpolating.

    Raises:
        DataError: the spacing is not known or not positive, the numbers do not fit the axes, or the result is too
            large.
    """
    wanted = per_axis(spacing_mm, image, "spacing_mm")
    if not image.spacing_mm:
        raise DataError("its spacing is not known, so it cannot be resampled to one")
    sizes = image.pixels.shape[1:]
    factors = [new / old if old > 0 else 0.0 for new, old in zip(wanted, image.spacing_mm, strict=True)]
    if not all(0 < factor < math.inf for factor in factors):
        raise DataError(f"its spacing {image.spacing_mm} mm is not a positive distance on every axis")
    exact = [size / factor for size, factor in zip(sizes, factors, strict=True)]
    check_result(image, exact)
    shape = [max(1, round(size)) for size in exact]
    return replace(_on_grid(image, shape, factors, nearest=nearest), spacing_mm=wanted)


def to_shape(image: Image, size: int | Sequence[int], *, nearest: bool = False) -> Image:
    """The whole field of view of the image with another number of voxels; a known spacing is scaled.

    Args:
        image: any.
        size: one number, or one for each spatial axis.
        nearest: as for :func:`to_spacing`.

    Raises:
        DataError: the numbers do not fit the axes, or the result is too large.
    """
    shape = per_axis(size, image, "size")
    check_result(image, shape)
    factors = [old / new for old, new in zip(image.pixels.shape[1:], shape, strict=True)]
    spacing_mm = tuple(old * factor for old, factor in zip(image.spacing_mm, factors, strict=False))
    return replace(_on_grid(image, shape, factors, nearest=nearest), spacing_mm=spacing_mm)


def _on_grid(image: Image, shape: Sequence[int], factors: Sequence[float], *, nearest: bool) -> Image:
    pixels = _resample(image.pixels, shape, factors, nearest=nearest)
    # Voxel 0 of the new grid, as in ``_Axis.centres``.
    old = image.pixels.shape[1:]
    firsts = [(1 - n) / 2 * factor + (o - 1) / 2 for o, n, factor in zip(old, shape, factors, strict=True)]
    affine = moved(image, firsts, factors)
    if image.measured is None:
        return replace(image, pixels=pixels, spacing_mm=(), affine=affine)
    measured = some_or_none(_resample(image.measured[None], shape, factors, nearest=True)[0])
    return replace(image, pixels=pixels, measured=measured, spacing_mm=(), affine=affine)


@dataclass(frozen=True)
class _Axis:
    """One axis of the old and the new grid; ``factor`` old voxels are as long as a new one."""

    old: int
    new: int
    factor: float

    @property
    def same(self) -> bool:
        return self.old == self.new and abs(self.factor - 1) * self.old < _SAME_GRID

    def centres(self) -> np.ndarray:
        """Where the new voxels lie, in old voxels, held inside the centres of the first and the last."""
        places = (np.arange(self.new) + 0.5 - self.new / 2) * self.factor + self.old / 2 - 0.5
        return np.clip(places, 0, self.old - 1)

    def nearest(self) -> np.ndarray:
        """The old voxel nearest to each new one; of two at one distance the later."""
        return np.arange(self.old) if self.same else np.floor(self.centres() + 0.5).astype(np.intp)

    def operator(self) -> csr_array:
        """New voxels as weighted sums of old ones, ``[new, old]``: the Gaussian and the interpolation in one."""
        centres = self.centres()
        before = np.floor(centres).astype(np.intp)
        part = (centres - before)[:, None]
        kernel = _gaussian(min(self.factor, self.old))  # a voxel larger than the image sees no more than the image
        radius = len(kernel) // 2
        weights = np.append(kernel, 0) * (1 - part) + np.insert(kernel, 0, 0) * part
        voxels = np.clip(before[:, None] + np.arange(-radius, radius + 2), 0, self.old - 1)
        starts = np.arange(0, weights.size + 1, weights.shape[1])
        return csr_array((weights.ravel(), voxels.ravel(), starts), shape=(self.new, self.old))


def _gaussian(factor: float) -> np.ndarray:
    """What new voxels ``factor`` times as wide see more than the old ones, as a kernel of odd length with sum 1.

    Voxels are taken as Gaussians whose full width at half maximum is their spacing (Cardoso et al., Scale factor point
    spread function matching, MICCAI 2015): variances add, so sigma^2 = (factor^2 - 1) / (8 ln 2).
    """
    sigma = math.sqrt(max(0.0, factor * factor - 1) / (8 * math.log(2)))
    radius = int(_CUT_SIGMAS * sigma + 0.5)
    impulse = np.zeros(2 * radius + 1)
    impulse[radius] = 1
    return impulse if not radius else gaussian_filter1d(impulse, sigma, mode="constant", truncate=_CUT_SIGMAS)


def _resample(pixels: np.ndarray, shape: Sequence[int], factors: Sequence[float], *, nearest: bool) -> np.ndarray:
    axes = [_Axis(*numbers) for numbers in zip(pixels.shape[1:], shape, factors, strict=True)]
    if all(axis.same for axis in axes):
        return pixels
    if nearest:
        return pixels[np.ix_(np.arange(len(pixels)), *(axis.nearest() for axis in axes))]
    result = np.empty((len(pixels), *shape), pixels.dtype)
    # Pieces are cut along an axis that is long on both grids. The other axes follow, those that shrink most first: so
    # what lies between is never larger than the larger of the two ends.
    first, *rest = sorted(range(len(axes)), key=lambda number: -min(axes[number].old, axes[number].new))
    rest.sort(key=lambda number: axes[number].new / axes[number].old)
    row_bytes = 8 * max(math.prod(axes[number].old for number in rest), math.prod(axes[number].new for number in rest))
    if row_bytes > _WORKSPACE_BYTES:
        raise DataError(f"resampling shape {pixels.shape[1:]} to {tuple(shape)} takes {row_bytes} bytes for one plane")
    rows = max(1, _PIECE_BYTES // row_bytes)
    order = [first, *rest]
    for old, new in zip(pixels, result, strict=True):
        _resample_channel(old.transpose(order), new.transpose(order), [axes[number] for number in order], rows)
    return result


def _resample_channel(old: np.ndarray, new: np.ndarray, axes: Sequence[_Axis], rows: int) -> None:
    """Fill ``new`` from ``old``, ``rows`` rows of the first axis at a time; the result does not depend on ``rows``."""
    operators = [None if axis.same else axis.operator() for axis in axes]
    for start in range(0, axes[0].new, rows):
        part = slice(start, start + rows)
        if operators[0] is None:
            piece = old[part]
        else:
            operator = operators[0][part]
            first, last = int(operator.indices.min()), int(operator.indices.max()) + 1
            piece = _along(old[first:last], 0, operator[:, first:last])
        for number, operator in enumerate(operators[1:], start=1):
            piece = piece if operator is None else _along(piece, number, operator)
        new[part] = _to_dtype(piece, new.dtype)


def _along(values: np.ndarray, axis: int, operator: csr_array) -> np.ndarray:
    """Weighted sums along one axis in float64; SciPy adds them tap by tap, the same bits on every machine."""
    lines = np.ascontiguousarray(np.moveaxis(values, axis, 0), dtype=np.float64)
    sums = operator @ lines.reshape(len(lines), -1)
    return np.moveaxis(sums.reshape(-1, *lines.shape[1:]), 0, axis)


def _to_dtype(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Rounded for integers, and held inside what the dtype can say; means of floats are inside already."""
    if dtype.kind == "f":
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    low, high = float(limits.min), float(limits.max)
    if int(high) > limits.max:  # the largest int64 is not a float64; the float64 below it is an int64
        high = math.nextafter(high, 0)
    return np.clip(np.rint(values), low, high).astype(dtype)
