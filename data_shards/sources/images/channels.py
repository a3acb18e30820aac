"""One number of channels for all images of one name: grey and colour in one dataset.

Grey repeated three times, and one of three equal channels, lose nothing; these two are done without asking. Taking the
brightness of real colours loses something, and is done only when the user says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np

from data_shards.support.errors import DataError

Channels = Literal["auto", "keep", 1, 3]

GREY, COLOUR = 1, 3
# ITU-R BT.601, as Pillow and others turn colours to grey.
_BRIGHTNESS = (0.299, 0.587, 0.114)


def common_channels(counts: Iterable[int | None]) -> int | None:
    """The number of channels to bring images to when some are grey and some have colour: what most of them have.

    Args:
        counts: channels of each image; None where nobody knows.

    Returns:
        1 or 3, or None when they agree. Of equal numbers of both, 3, for that is always possible.
    """
    found = Counter(counts)
    if not found[GREY] or not found[COLOUR]:
        return None
    return GREY if found[GREY] > found[COLOUR] else COLOUR


def with_channels(pixels: np.ndarray, count: int, *, lossless: bool) -> np.ndarray:
    """The pixels ``C,H,W`` or ``C,D,H,W`` with one channel or three.

    Args:
        pixels: with one channel or three.
        count: 1 or 3.
        lossless: refuse to turn colours that differ to grey.

    Raises:
        DataError: the pixels have another number of channels, or colours, which ``lossless`` forbids to lose.
    """
    found = len(pixels)
    if found == count:
        return pixels
    if {found, count} != {GREY, COLOUR}:
        raise DataError(f"has {found} channels; 1 or 3 can be brought to {count}")
    if found == GREY:
        return np.repeat(pixels, COLOUR, axis=0)
    if is_grey(pixels):
        return np.ascontiguousarray(pixels[:1])
    if lossless:
        raise DataError(
            "has 3 channels of different colours, most of the other images have 1; "
            "channels: 3 repeats grey three times, channels: 1 takes the brightness of colours"
        )
    grey = np.zeros(pixels.shape[1:], np.float64)
    for channel, share in zip(pixels, _BRIGHTNESS, strict=True):
        grey += channel * share
    return (grey if pixels.dtype.kind == "f" else np.rint(grey)).astype(pixels.dtype)[None]


def is_grey(pixels: np.ndarray) -> bool:
    """Whether all channels are equal."""
    return all(np.array_equal(channel, pixels[0]) for channel in pixels[1:])


def words(counts: Sequence[int | None]) -> str:
    """How many images have how many channels."""
    found = sorted(Counter(count for count in counts if count is not None).items())
    return " and ".join(f"{images} with {count} channel{'s' * (count > 1)}" for count, images in found)
