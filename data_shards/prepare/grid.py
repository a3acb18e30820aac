"""Numbers for each axis, results that are too large, and which images lie on one grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from data_shards.sample import MASK, Image
from data_shards.support.errors import DataError
from data_shards.support.limits import MAX_BYTES

_MAX_VOXELS_PER_AXIS = 1 << 16
# Spacings that differ by less are one spacing that was rounded by different writers.
_SPACING_TOLERANCE = 1e-3

Number = TypeVar("Number", int, float)


def per_axis(value: Number | Sequence[Number], image: Image, option: str) -> tuple[Number, ...]:
    """``value`` for each spatial axis of the image.

    Raises:
        DataError: there are more or fewer numbers than axes.
    """
    axes = image.pixels.ndim - 1
    if not isinstance(value, Sequence):
        return (value,) * axes
    if len(value) != axes:
        shape = image.pixels.shape[1:]
        raise DataError(f"{option} has {len(value)} numbers, an image of shape {shape} has {axes} axes")
    return tuple(value)


def check_result(image: Image, shape: Sequence[float]) -> None:
    """Check the size of an image that is to be made, before memory is spent on it.

    Raises:
        DataError: with the spatial shape ``shape`` it has more than 65536 voxels along an axis, or more than 2 GiB.
    """
    text = " x ".join(f"{max(1, size):.0f}" for size in shape)
    if max(shape) > _MAX_VOXELS_PER_AXIS:
        raise DataError(f"would become {text} voxels; at most {_MAX_VOXELS_PER_AXIS} are accepted along an axis")
    count = math.prod(max(1, round(size)) for size in shape) * len(image.pixels) * image.pixels.dtype.itemsize
    if count > MAX_BYTES:
        raise DataError(f"would become {text} voxels, {count} bytes; at most {MAX_BYTES} are accepted")


def some_or_none(measured: np.ndarray) -> np.ndarray | None:
    """What was measured of an image; None where nothing is left of it, for then its background is all that it has."""
    return measured if measured.any() else None


def moved(image: Image, firsts: Sequence[float], factors: Sequence[float] | None = None) -> np.ndarray | None:
    """The affine of an image on another grid; None where that of the image is not known.

    Args:
        image: on its own grid.
        firsts: where the first voxel of the other grid lies, in indices of the image.
        factors: how many voxels of the image are as long as one of the other grid, along each axis; None for one.
    """
    if image.affine is None:
        return None
    change = np.diag([*(factors or [1.0] * len(firsts)), 1.0])
    change[:-1, -1] = firsts
    return image.affine @ change


def same_grid(one: Image, other: Image) -> bool:
    """Whether two images have one shape and, where both are known, one spacing."""
    if one.pixels.shape[1:] != other.pixels.shape[1:]:
        return False
    pairs = zip(one.spacing_mm, other.spacing_mm, strict=False)
    return all(math.isclose(first, second, rel_tol=_SPACING_TOLERANCE) for first, second in pairs)


def grids(images: dict[str, Image]) -> list[list[str]]:
    """The names of the images, those on one grid together, in the order in which they come."""
    groups: list[list[str]] = []
    for name, image in images.items():
        for group in groups:
            if same_grid(images[group[0]], image):
                group.append(name)
                break
        else:
            groups.append([name])
    return groups


def with_mask_aligned(images: dict[str, Image]) -> dict[str, Image]:
    """The images with the mask on exactly the grid of the image that it belongs to, whatever its own file says.

    Raises:
        DataError: no image has the shape and spacing of the mask.
    """
    mask = images.get(MASK)
    if mask is None:
        return images
    for name, image in images.items():
        if name != MASK and same_grid(mask, image):
            return {**images, MASK: replace(mask, spacing_mm=image.spacing_mm)}
    raise DataError(f"the mask of shape {mask.pixels.shape[1:]} is on the grid of no image")
