"""Many images read into one array: of one size, of one number of channels, and no more than memory holds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from data_shards.sources.images.channels import Channels, common_channels, with_channels, words
from data_shards.support.errors import DataError
from data_shards.support.memory import available_bytes, in_words
from finetune.memory import fitting, words_of

_COPIES = 3
"""A split is selected out of all images, and a subset out of a split: each is a copy."""


def read_together(
    names: Sequence[str], read: Callable[[int], np.ndarray], channels: Channels = "auto"
) -> tuple[np.ndarray, str]:
    """Read images one by one.

    Args:
        names: how messages call each image.
        read: gives the image at a position, uint8 ``C,H,W`` or ``C,D,H,W``.
        channels: 1 or 3; ``keep`` refuses images that differ; ``auto`` brings grey and colour to what most images have,
            see :mod:`data_shards.sources.images.channels`.

    Returns:
        uint8 ``(N, C, ...)``, and the SHA-256 of all pixels in order.

    Raises:
        DataError: an image cannot be read, images differ in size or channels, or memory is too small for all; the
            message names the image.
    """
    pixels: list[np.ndarray] = []
    for position, name in enumerate(names):
        try:
            image = read(position)
        except DataError as error:
            raise DataError(f"{name}: {error}") from None
        if not pixels:
            _check_memory(len(names), image)
        elif image.shape[1:] != pixels[0].shape[1:]:
            raise DataError(
                f"{name} has channels, {'depth, ' * (image.ndim - 3)}height, width {image.shape} but "
                f"{names[0]} has {pixels[0].shape}; images must agree (--size resizes planes)"
            )
        pixels.append(image)
    counts = [len(image) for image in pixels]
    count = int(channels) if channels in (1, 3) else common_channels(counts) if channels == "auto" else None
    if count is None and len(set(counts)) > 1:
        other = next(position for position, found in enumerate(counts) if found != counts[0])
        raise DataError(
            f"images have different numbers of channels ({words(counts)}): {names[0]} has {counts[0]}, "
            f"{names[other]} {counts[other]}"
        )
    result = np.empty((len(pixels), count or counts[0], *pixels[0].shape[1:]), np.uint8)
    digest = hashlib.sha256()
    for position, name in enumerate(names):
        image, pixels[position] = pixels[position], np.empty(0)  # given back at once: no second copy of all is held
        digest.update(image.tobytes())
        try:
            result[position] = image if count is None else with_channels(image, count, lossless=channels == "auto")
        except DataError as error:
            raise DataError(f"{name} {error} ({words(counts)})") from None
    return result, digest.hexdigest()


def _check_memory(count: int, first: np.ndarray) -> None:
    need, free = _COPIES * count * first.nbytes, available_bytes()
    if need > free:
        raise DataError(
            f"{count} images of {words_of(first.shape)} take {in_words(need)}, {in_words(free)} are free"
            f"{fitting(first.shape, free / need)}"
        )
