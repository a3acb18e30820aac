"""How the pixels of a data set are laid out, as its header says; refused when too large, before anything is decoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from data_shards.sources.images.dicom import elements
from data_shards.support.errors import DataError
from data_shards.support.limits import check_size

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_FLOATS = {"FloatPixelData": 32, "DoubleFloatPixelData": 64}
_GREY = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")


@dataclass(frozen=True)
class Layout:
    """The Image Pixel Module (PS3.3 section C.7.6.3), checked.

    Attributes:
        rows: pixels along a column.
        columns: pixels along a row.
        frames: planes in the file.
        samples: 1, or 3 for colour.
        allocated: bits that a sample takes in memory.
        stored: bits of it that carry the value.
        high: position of the highest of these.
        signed: whether the value is in two's complement.
        photometric: meaning of the samples, in capitals.
        floating: whether the values are floats.
    """

    rows: int
    columns: int
    frames: int
    samples: int
    allocated: int
    stored: int
    high: int
    signed: bool
    photometric: str
    floating: bool

    @property
    def byte_count(self) -> int:
        """Bytes of all frames in memory."""
        return self.rows * self.columns * self.frames * self.samples * max(self.allocated // 8, 1)

    @property
    def ends(self) -> tuple[int, int]:
        """The smallest and the largest value that the stored bits can express."""
        return (-(1 << self.stored - 1), (1 << self.stored - 1) - 1) if self.signed else (0, (1 << self.stored) - 1)


def layout_of(dataset: Dataset, pixel_keyword: str) -> Layout:
    """The layout that a header describes.

    Args:
        dataset: of one file.
        pixel_keyword: ``PixelData``, ``FloatPixelData`` or ``DoubleFloatPixelData``.

    Raises:
        DataError: an attribute is missing or contradicts another, or the image is too large.
    """
    floating = pixel_keyword in _FLOATS
    allocated = _FLOATS.get(pixel_keyword) or elements.integer(dataset, "BitsAllocated")
    stored = allocated if floating else elements.integer(dataset, "BitsStored", allocated)
    found = Layout(
        rows=elements.integer(dataset, "Rows"),
        columns=elements.integer(dataset, "Columns"),
        frames=elements.integer(dataset, "NumberOfFrames", 1) or 1,
        samples=elements.integer(dataset, "SamplesPerPixel", 1),
        allocated=allocated,
        stored=stored,
        high=stored - 1 if floating else elements.integer(dataset, "HighBit", stored - 1),
        signed=False if floating else elements.integer(dataset, "PixelRepresentation", 0) == 1,
        photometric=elements.text(dataset, "PhotometricInterpretation").upper(),
        floating=floating,
    )
    if allocated not in (1, 8, 16, 32, 64) or not 1 <= stored <= allocated or not stored - 1 <= found.high < allocated:
        raise DataError(f"{stored} stored bits with highest bit {found.high} in {allocated} allocated bits do not fit")
    if found.samples not in (1, 3) or (found.samples == 1) != (found.photometric in _GREY):
        raise DataError(f"{found.samples} samples per pixel do not fit the photometric interpretation")
    check_size(
        (found.frames, found.rows, found.columns, found.samples), np.dtype(f"u{max(allocated // 8, 1)}"), "an image"
    )
    return found
