"""Cutting to the foreground, and cutting or padding to one shape."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from data_shards.prepare.grid import check_result, moved, per_axis, some_or_none
from data_shards.sample import Image

Box = tuple[slice, ...]


def foreground_box(images: Iterable[Image], threshold: float | Literal["mean"], margin: int) -> Box:
    """The smallest box that holds the foreground of every image, and ``margin`` voxels around it.

    Args:
        images: on one grid; voxels with any channel above the threshold are foreground.
        threshold: in the units of the images, or ``mean`` for the mean of what was measured of each.
        margin: voxels; it ends where the image does.

    Returns:
        A slice for each spatial axis; the whole image where nothing is above the threshold.
    """
    ends: list[tuple[np.ndarray, np.ndarray]] = []
    for image in images:
        shape = image.pixels.shape[1:]
        limit = image.values.mean(dtype=np.float64) if threshold == "mean" else threshold
        foreground: np.ndarray = np.any(image.pixels > limit, axis=0)
        if image.measured is not None:
            foreground &= image.measured
        # One line of the box at a time: a list of the places of all voxels would take 24 bytes for each.
        lines = [
            np.flatnonzero(foreground.any(axis=tuple(other for other in range(len(shape)) if other != axis)))
            for axis in range(len(shape))
        ]
        if lines[0].size:
            first, last = (np.array([line[end] for line in lines]) for end in (0, -1))
            ends.append((np.maximum(first - margin, 0), np.minimum(last + 1 + margin, shape)))
    if not ends:
        return tuple(slice(0, size) for size in shape)
    low, high = np.min([first for first, _ in ends], axis=0), np.max([last for _, last in ends], axis=0)
    return tuple(slice(int(start), int(stop)) for start, stop in zip(low, high, strict=True))


def cut(image: Image, box: Box) -> Image:
    """The image inside ``box``."""
    measured = None if image.measured is None else some_or_none(np.ascontiguousarray(image.measured[box]))
    pixels = np.ascontiguousarray(image.pixels[(slice(None), *box)])
    return replace(image, pixels=pixels, measured=measured, affine=moved(image, [axis.start for axis in box]))


def cut_or_pad(image: Image, size: int | Sequence[int], *, mask: bool = False) -> Image:
    """Bring to one shape around the centre, without resampling; where a voxel cannot be halved the end gets it.

    Args:
        image: any; its spacing stays.
        size: one number, or one for each spatial axis.
        mask: pad with 0, the background of class ids, instead of the smallest value of the image, which is air or
            darkness in most of them, and never a value that the image does not have.

    Raises:
        DataError: the numbers do not fit the axes, or the result is too large.
    """
    shape = per_axis(size, image, "size")
    old = image.pixels.shape[1:]
    if shape == old:
        return image
    check_result(image, shape)
    pixels = np.full((len(image.pixels), *shape), 0 if mask else image.pixels.min(), image.pixels.dtype)
    source, target = [slice(None)], [slice(None)]
    firsts = []
    for before, after in zip(old, shape, strict=True):
        kept = min(before, after)
        firsts.append((before - kept) // 2 - (after - kept) // 2)
        source.append(slice((before - kept) // 2, (before - kept) // 2 + kept))
        target.append(slice((after - kept) // 2, (after - kept) // 2 + kept))
    pixels[tuple(target)] = image.pixels[tuple(source)]
    measured = None
    if image.measured is not None:  # the padding was measured as little as what surrounds it
        measured = np.zeros(shape, bool)
        measured[tuple(target[1:])] = image.measured[tuple(source[1:])]
        measured = some_or_none(measured)
    return replace(image, pixels=pixels, measured=measured, affine=moved(image, firsts))
