"""Pixels that a scanner did not measure: Pixel Padding Value and Pixel Padding Range Limit (PS3.3 C.7.5.1.1.2).

They are given as stored values, before slope and intercept, and both ends of the range count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from data_shards.sources.images.dicom import elements
from data_shards.sources.images.dicom.layout import Layout
from data_shards.support.errors import DataError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_FLOATS = {32: "Float", 64: "DoubleFloat"}


def padding_of(dataset: Dataset, layout: Layout) -> tuple[float, float] | None:
    """The range of stored values that are padding, lowest and highest; None when the file names none.

    Raises:
        DataError: an attribute is not a number.
    """
    prefix = _FLOATS[layout.allocated] if layout.floating else ""
    value = _stored(dataset, f"{prefix}PixelPaddingValue", layout)
    if value is None:
        return None
    limit = _stored(dataset, f"{prefix}PixelPaddingRangeLimit", layout)
    return (value, value) if limit is None else (min(value, limit), max(value, limit))


def without_padding(stored: np.ndarray, padding: tuple[float, float] | None) -> tuple[np.ndarray, np.ndarray | None]:
    """A frame with the smallest stored value that was measured in place of padding, and where it was measured.

    So nothing that follows, from the smallest type to the window of a screen, sees the padding.

    Returns:
        The frame, and a bool ``H,W``: None when there is no padding in it, all False when there is nothing else.
    """
    if padding is None:
        return stored, None
    measured = ~np.isnan(stored) if np.isnan(padding[0]) else (stored < padding[0]) | (stored > padding[1])
    if measured.all():
        return stored, None
    if not measured.any():
        return stored, measured
    return np.where(measured, stored, stored[measured].min()), measured


def _stored(dataset: Dataset, keyword: str, layout: Layout) -> float | None:
    """One end of the range, as the decoder gives such a pixel."""
    found = elements.value(dataset, keyword)
    if isinstance(found, bytes):  # of unknown or wrong representation
        found = int.from_bytes(found[:2], "big" if dataset.original_encoding[1] is False else "little")
    if layout.floating and isinstance(found, float):
        return found  # which may be NaN
    numbers = elements.as_numbers(found, keyword, 1)
    if numbers is None:
        return None
    if numbers[0] % 1:
        raise DataError(f"{keyword} is not a whole number")
    number = int(numbers[0])
    low, high = layout.ends
    if low <= number <= high:
        return float(number)
    # The attribute has 16 bits, signed as the pixels are; many files write it with the wrong representation.
    number &= 0xFFFF
    return float(number - 0x10000 if layout.signed and number >= 0x8000 else number)
