"""Lookup tables: of a modality, of a display, of a palette (PS3.3 sections C.11.1, C.11.2, C.7.6.3.1.5 and C.7.9)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from data_shards.sources.images.dicom import elements
from data_shards.support.errors import DataError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_MAX_ENTRIES = 1 << 16


@dataclass(frozen=True)
class Table:
    """Entries for consecutive values.

    Attributes:
        first: the value of the first entry; smaller values get this entry, values beyond the last get the last.
        entries: uint8 or uint16.
        bits: bits of an entry.
    """

    first: int
    entries: np.ndarray
    bits: int

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """The entry of each value; values that are not whole are rounded."""
        whole = values if values.dtype.kind in "ui" else np.rint(values)
        place = np.clip(whole, self.first, self.first + len(self.entries) - 1).astype(np.int64) - self.first
        return self.entries[place]


def lookup_table(dataset: Dataset, sequence: str) -> Table | None:
    """The table in the first item of ``ModalityLUTSequence`` or ``VOILUTSequence``; None when there is none.

    Raises:
        DataError: the table contradicts its descriptor.
    """
    item = elements.first_item(dataset, sequence)
    if item is None or elements.value(item, "LUTData") is None:
        return None
    return _table(item, "LUTDescriptor", _numbers(dataset, item, "LUTData", "LUTDescriptor"))


def palette(dataset: Dataset) -> list[Table]:
    """Tables of red, green and blue, plain or segmented.

    Raises:
        DataError: one of them is missing or contradicts its descriptor.
    """
    tables = []
    for colour in ("Red", "Green", "Blue"):
        descriptor, data = (f"{colour}PaletteColorLookupTable{part}" for part in ("Descriptor", "Data"))
        if elements.value(dataset, data) is not None:
            entries = _numbers(dataset, dataset, data, descriptor)
        else:
            entries = _expand(_numbers(dataset, dataset, f"Segmented{data}", descriptor, segmented=True))
        tables.append(_table(dataset, descriptor, entries))
    if len({table.bits for table in tables}) > 1:
        raise DataError("the palettes of red, green and blue differ in the bits of an entry")
    return tables


def _descriptor(item: Dataset, keyword: str) -> tuple[int, int, int]:
    found = elements.as_numbers(elements.value(item, keyword), keyword, 3)
    if found is None:
        raise DataError(f"{keyword} is missing")
    count, first, bits = (int(number) for number in found)
    if not 0 <= count <= _MAX_ENTRIES or not 8 <= bits <= 16:
        raise DataError(f"a lookup table of {count} entries of {bits} bits is not possible")
    return count or _MAX_ENTRIES, first, bits


def _table(item: Dataset, descriptor: str, entries: np.ndarray) -> Table:
    count, first, bits = _descriptor(item, descriptor)
    if len(entries) < count:
        raise DataError(f"a lookup table holds {len(entries)} entries, its descriptor says {count}")
    entries = entries[:count]
    if int(entries.max()) >> bits:
        raise DataError(f"a lookup table has entries of more than {bits} bits")
    return Table(first, entries.astype(np.uint8 if bits == 8 else np.uint16), bits)


def _numbers(dataset: Dataset, item: Dataset, keyword: str, descriptor: str, *, segmented: bool = False) -> np.ndarray:
    """Data of a table as numbers, whether the file keeps them as numbers, as words or as packed bytes."""
    count, _, bits = _descriptor(item, descriptor)
    data = elements.value(item, keyword)
    if data is None:
        raise DataError(f"{keyword} is missing")
    if not isinstance(data, bytes):
        return np.array(elements.as_numbers(data, keyword), dtype=np.int64)
    # Entries of 8 bits may be packed in pairs or stand in words of their own: the length tells.
    packed = bits == 8 and (segmented or len(data) < 2 * count)
    order = ">" if dataset.original_encoding[1] is False else "<"
    return np.frombuffer(data[: len(data) // 2 * 2], np.uint8 if packed else f"{order}u2").astype(np.int64)


def _expand(segments: np.ndarray) -> np.ndarray:
    """Entries of a segmented palette (PS3.3 section C.7.9.2): discrete and linear segments.

    Indirect segments, which repeat earlier ones, are not known from practice and are refused.
    """
    entries: list[int] = []
    offset = 0
    while offset + 2 < len(segments) and len(entries) <= _MAX_ENTRIES:
        kind, length = int(segments[offset]), int(segments[offset + 1])
        offset += 2
        if kind == 0:
            entries += segments[offset : offset + length].tolist()
            offset += length
        elif kind == 1 and entries and length:
            steps = np.linspace(entries[-1], int(segments[offset]), length + 1)
            entries += np.rint(steps[1:]).astype(np.int64).tolist()
            offset += 1
        else:
            raise DataError(f"a segmented palette has a segment of kind {kind} that cannot be read")
    return np.array(entries, dtype=np.int64)
