"""Checksums of parts of large images, by which a box is read out of a volume without reading the volume.

An image in C order is a stack of planes (``C`` or ``C*D`` of them) of ``H`` lines. A band is a run of whole lines of
one plane, as many as fit into :data:`BAND_BYTES`, so the lines that a box needs of a plane lie in neighbouring bands,
which stand side by side in the file. Their CRC-32 stand behind the records of the index, as a second
``.npy`` array in the same file: record by record, image by image in the order of their names, plane by plane. Which
images have them, and how many, follows from the records; who reads the records alone reads the file as ever.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from isal.isal_zlib import crc32

from data_shards.format.index import Codec
from data_shards.support.descriptors import raise_out_of_files
from data_shards.support.errors import DataError

BAND_BYTES = 16 << 10
BANDED_BYTES = 1 << 20
"""Raw images from this size on have bands; smaller ones are read as a whole."""


class Bands(NamedTuple):
    """How the bands of an image lie.

    Attributes:
        planes: how many.
        lines: of a plane.
        line_bytes: of a line.
        rows: lines of a band; the last one of a plane may have fewer.
    """

    planes: int
    lines: int
    line_bytes: int
    rows: int

    @classmethod
    def of(cls, shape: Sequence[int], itemsize: int) -> Bands:
        """Those of an image ``C,H,W`` or ``C,D,H,W``."""
        *outer, lines, width = (int(size) for size in shape)
        line_bytes = width * itemsize
        return cls(int(np.prod(outer)), lines, line_bytes, max(1, BAND_BYTES // line_bytes))

    @property
    def of_plane(self) -> int:
        """Bands of a plane."""
        return -(-self.lines // self.rows)

    def checksums(self, plane: memoryview) -> list[int]:
        """CRC-32 of the bands that ``plane`` holds, which begins with one and ends with one."""
        step = self.rows * self.line_bytes
        return [crc32(plane[start : start + step]) for start in range(0, len(plane), step)]


def band_counts(slots: np.ndarray) -> np.ndarray:
    """How many bands each image has, int64; 0 where it is small, not raw, or not there.

    Args:
        slots: entries of the index, dtype :data:`~data_shards.format.index.IMAGE_DTYPE`, any shape.
    """
    shape = slots["shape"].astype(np.int64)
    volume = shape[..., 3] > 0
    lines = np.where(volume, shape[..., 2], shape[..., 1])
    width = np.where(volume, shape[..., 3], shape[..., 2])
    planes = shape[..., 0] * np.where(volume, shape[..., 1], 1)
    size = slots["bytes"].astype(np.int64)
    banded = (slots["codec"] == Codec.raw) & (size >= BANDED_BYTES)
    line_bytes = np.maximum(1, size // np.maximum(1, planes * lines))
    rows = np.maximum(1, BAND_BYTES // line_bytes)
    counts: np.ndarray = np.where(banded & (width > 0), planes * -(-lines // rows), 0)
    return counts


def band_starts(records: np.ndarray) -> dict[str, np.ndarray]:
    """Where the checksums of each image begin among those of the shard: int64 by name, -1 where it has none."""
    names = records.dtype["images"].names or ()
    if not names:
        return {}
    counts = np.stack([band_counts(records["images"][name]) for name in names], axis=1)
    starts = (np.cumsum(counts) - counts.ravel()).reshape(counts.shape)
    return {name: np.where(counts[:, place] > 0, starts[:, place], -1) for place, name in enumerate(names)}


def bands_of_shard(path: Path, records: np.ndarray) -> np.ndarray:
    """The checksums of all bands of a shard that is complete, uint32; none where no image is large.

    Raises:
        DataError: the file does not hold what was written: the CRC-32 of an image is not the one of its record.
    """
    names = records.dtype["images"].names or ()
    counts = {name: band_counts(records["images"][name]) for name in names}
    found: list[int] = []
    if not any(each.any() for each in counts.values()):
        return np.empty(0, np.uint32)
    with open(path, "rb") as file:
        for number, record in enumerate(records):
            for name in names:
                if counts[name][number]:
                    found += _bands_of_image(file, f"{path}: sample number {number}", record["images"][name])
    return np.array(found, np.uint32)


def _bands_of_image(file: BinaryIO, name: str, slot: np.void) -> list[int]:
    shape = [int(size) for size in slot["shape"] if size]
    bands = Bands.of(shape, int(slot["bytes"]) // int(np.prod(shape)))
    found: list[int] = []
    whole = 0
    file.seek(int(slot["offset"]))
    for _ in range(bands.planes):
        plane = file.read(bands.lines * bands.line_bytes)
        found += bands.checksums(memoryview(plane))
        whole = crc32(plane, whole)
    if whole != slot["crc32"]:
        raise DataError(
            f"{name}: the file gives other pixels than were written: it was changed, or the disk is failing"
        )
    return found


def read_bands(file: BinaryIO, name: str, records: np.memmap) -> np.ndarray:
    """The checksums behind the records of an index that is open, uint32; empty where there are none.

    Args:
        file: the index.
        name: its address, for messages.
        records: as they were mapped from it.

    Raises:
        DataError: what stands there is not as many checksums as the records ask for.
    """
    begin = records.offset + records.nbytes
    if os.fstat(file.fileno()).st_size <= begin:
        return np.empty(0, np.uint32)
    file.seek(begin)
    try:
        found = np.lib.format.read_array(file, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise DataError(f"{name}: not readable behind its records: {error}") from None
    names = records.dtype["images"].names or ()
    expected = sum(int(band_counts(records["images"][image]).sum()) for image in names)
    if found.dtype != np.uint32 or found.shape != (expected,):
        raise DataError(f"{name}: {found.shape} {found.dtype} behind its records, {expected} checksums are expected")
    return found


def bands_of_index(path: Path, records: np.memmap) -> np.ndarray:
    """As :func:`read_bands`, of a file that is not open.

    Raises:
        DataError: it cannot be read either.
    """
    try:
        with open(path, "rb") as file:
            return read_bands(file, str(path), records)
    except OSError as error:
        raise_out_of_files(error)
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
