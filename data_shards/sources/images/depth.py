"""How deep the values of an image are, before its pixels are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data_shards.sources.images.array import array_header
from data_shards.sources.images.picture import picture_has_8_bits
from data_shards.sources.images.study import Place
from data_shards.support.errors import DataError


def has_8_bits(root: Path, place: Place, *, voi: bool) -> bool | None:
    """Whether the values are those of a screen, 0 to 255: pictures and arrays of 8 bits, windowed DICOM images.

    NIfTI and other DICOM images hold what was measured, in whatever number of bits.

    Args:
        root: of the archive.
        place: where the image lies.
        voi: whether DICOM images are shown through their window, which gives 8 bits.

    Returns:
        None where the header cannot be read; reading the image then says what is wrong.
    """
    if place.kind == "picture":
        return picture_has_8_bits(root / place.path)
    if place.kind == "npy":
        try:
            return array_header(root / place.path)[1] in (np.dtype(np.uint8), np.dtype(bool))
        except DataError:
            return None
    return None if place.kind is None else place.kind == "dicom" and voi
