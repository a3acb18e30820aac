"""The offset index of a shard: one fixed-size record per sample, so that any sample is found without reading the tar.

The file is a plain ``.npy`` of a structured dtype: it is loaded without pickle and memory-mapped. All indices of a
dataset have the same dtype. A record says where the raw pixels of each image lie (the header of its ``.npy`` member is
already parsed) and repeats what a training batch needs of the ``.json`` member.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from data_shards.sample import Sample
from data_shards.support.descriptors import raise_out_of_files
from data_shards.support.errors import DataError
from data_shards.support.files import write_atomic

MAX_AXES = 4
# Magic, version and length of the header that follows, as version 1.0 of the .npy format has them (NEP 1).
_HEADER_START = 10


class Codec(IntEnum):
    """How the pixels of an image stand in the shard: our writer stores them raw or gzipped, others as they like."""

    raw = 0
    npy = 1
    picture = 2
    npy_channels_last = 3
    npy_gzip = 4


# One image of a study. ``bytes`` is 0 when the study does not have it; shape is padded with 0, spacing with NaN.
# Offset, bytes and CRC are of what stands in the shard, dtype and shape of the pixels.
IMAGE_DTYPE = np.dtype(
    [
        ("offset", "<u8"),
        ("bytes", "<u8"),
        ("crc32", "<u4"),
        ("codec", "u1"),
        ("dtype", "S3"),
        ("shape", "<u4", (MAX_AXES,)),
        ("spacing_mm", "<f8", (MAX_AXES - 1,)),
        ("modality", "u1"),
    ]
)


@dataclass(frozen=True)
class Layout:
    """What decides the dtype of the records of a dataset; grows with every sample that is added.

    Attributes:
        key_bytes: length of the longest key.
        subject_bytes: length of the longest subject.
        label_width: length of the label vectors, 0 when nothing is labelled.
        label_dtype: ``<i8`` or ``<f8``.
        attributes: the names of the attributes that occur, sorted.
        images: the names of the images that occur, sorted.
    """

    key_bytes: int = 1
    subject_bytes: int = 1
    label_width: int = 0
    label_dtype: str = "<i8"
    attributes: tuple[str, ...] = ()
    images: tuple[str, ...] = ()

    @property
    def dtype(self) -> np.dtype:
        """The dtype of a record."""
        return np.dtype(
            [
                ("key", f"S{self.key_bytes}"),
                ("subject", f"S{self.subject_bytes}"),
                ("label", self.label_dtype, (self.label_width,)),
                ("labelled", "?"),
                ("organ", "u1"),
                ("task", "u1"),
                ("attributes", "<f8", (len(self.attributes),)),
                ("images", [(name, IMAGE_DTYPE) for name in self.images]),
            ]
        )

    def with_sample(self, sample: Sample) -> Layout:
        """The narrowest layout that also holds ``sample``.

        Raises:
            DataError: its label has another length or dtype than those before.
        """
        width, dtype = self.label_width, self.label_dtype
        if sample.label is not None:
            found = sample.label.size, sample.label.dtype.newbyteorder("<").str
            if width and found != (width, dtype):
                raise DataError(f"sample {sample.key}: a label of {found[0]} {found[1]}, those before {width} {dtype}")
            width, dtype = found
        return Layout(
            key_bytes=max(self.key_bytes, len(sample.key)),
            subject_bytes=max(self.subject_bytes, len(sample.subject)),
            label_width=width,
            label_dtype=dtype,
            attributes=_united(self.attributes, sample.attributes),
            images=_united(self.images, sample.images),
        )

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Layout:
        """A layout that went through JSON by :func:`dataclasses.asdict`."""
        return cls(**content | {name: tuple(content[name]) for name in ("attributes", "images")})

    def merged(self, other: Layout) -> Layout:
        """The narrowest layout that holds the records of both.

        Raises:
            DataError: their labels differ in length or dtype.
        """
        width, dtype = (self if self.label_width else other)._label
        if other.label_width and other._label != (width, dtype):
            raise DataError(f"labels of {other.label_width} {other.label_dtype}, those before {width} {dtype}")
        return Layout(
            key_bytes=max(self.key_bytes, other.key_bytes),
            subject_bytes=max(self.subject_bytes, other.subject_bytes),
            label_width=width,
            label_dtype=dtype,
            attributes=_united(self.attributes, other.attributes),
            images=_united(self.images, other.images),
        )

    @property
    def _label(self) -> tuple[int, str]:
        return self.label_width, self.label_dtype


@dataclass(frozen=True)
class ImageEntry:
    """One image of a row; the fields are those of :data:`IMAGE_DTYPE`."""

    offset: int
    bytes: int
    crc32: int
    dtype: str
    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    modality: int
    codec: int = Codec.raw


@dataclass(frozen=True)
class Row:
    """One sample of a shard that is being written, without its pixels."""

    key: str
    subject: str
    label: np.ndarray | None
    organ: int
    task: int
    images: Mapping[str, ImageEntry]
    attributes: Mapping[str, float] = field(default_factory=dict)


def encode(rows: Sequence[Row], layout: Layout) -> np.ndarray:
    """The records of ``rows``."""
    records = _blank(len(rows), layout)
    records["key"] = [row.key for row in rows]
    records["subject"] = [row.subject for row in rows]
    records["organ"] = [row.organ for row in rows]
    records["task"] = [row.task for row in rows]
    records["labelled"] = [row.label is not None for row in rows]
    for position, row in enumerate(rows):
        if row.label is not None:
            records["label"][position] = row.label
        for name, value in row.attributes.items():
            records["attributes"][position, layout.attributes.index(name)] = value
        for name, image in row.images.items():
            shape = image.shape + (0,) * (MAX_AXES - len(image.shape))
            spacing_mm = image.spacing_mm + (np.nan,) * (MAX_AXES - 1 - len(image.spacing_mm))
            place = image.offset, image.bytes, image.crc32, image.codec
            records["images"][name][position] = (*place, image.dtype, shape, spacing_mm, image.modality)
    return records


def widen(records: np.ndarray, narrow: Layout, layout: Layout) -> np.ndarray:
    """Records of the layout ``narrow`` in a layout that is at least as wide in everything."""
    wide = _blank(len(records), layout)
    for name in ("key", "subject", "organ", "task", "labelled"):
        wide[name] = records[name]
    if records["label"].shape[1]:
        labelled = records["labelled"]
        wide["label"][labelled] = records["label"][labelled]
    columns = [layout.attributes.index(name) for name in narrow.attributes]
    wide["attributes"][:, columns] = records["attributes"]
    for name in records["images"].dtype.names or ():
        wide["images"][name] = records["images"][name]
    return wide


def write_index(path: Path, records: np.ndarray, bands: np.ndarray | None = None) -> None:
    """Write records as one ``.npy`` file; behind them, where there are any, the checksums of bands as another one.

    Args:
        path: of the index.
        records: of all samples.
        bands: see :mod:`data_shards.format.bands`.
    """
    content = io.BytesIO()
    for array in [records] if bands is None or not bands.size else [records, bands]:
        np.lib.format.write_array(content, array, version=(1, 0), allow_pickle=False)
    write_atomic(path, content.getvalue())


def read_index(path: Path, samples: int) -> np.memmap:
    """The records of an index, memory-mapped.

    Raises:
        DataError: the file cannot be read, or is not an index of ``samples`` samples.
    """
    try:
        with open(path, "rb") as file:
            return map_index(file, str(path), samples)
    except OSError as error:
        raise_out_of_files(error)
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None


def map_index(file: BinaryIO, name: str, samples: int) -> np.memmap:
    """The records of an index that is open, memory-mapped; the map has a descriptor of its own.

    Args:
        file: open at its start.
        name: its address, for messages.
        samples: how many it lists.

    Raises:
        DataError: the file is not an index of ``samples`` samples.
        OSError: it cannot be mapped.
    """
    try:
        header = file.read(_HEADER_START)
        header += file.read(int.from_bytes(header[-2:], "little"))
        shape, dtype = _parsed(header)
        if shape != (samples,) or dtype.names != Layout().dtype.names:
            raise DataError(f"{name}: not an offset index of {samples} samples")
        return np.memmap(file, dtype, "r", len(header), shape)
    except (ValueError, EOFError, SyntaxError) as error:
        raise DataError(f"{name}: not a readable offset index: {error}") from None


@functools.lru_cache(64)
def _parsed(header: bytes) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of an ``.npy`` file; those of one dataset have equal headers, and reading one takes long."""
    stream = io.BytesIO(header)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("another version of the .npy format than we write")
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
    if fortran_order and len(shape) > 1:
        raise ValueError("columns first")
    return shape, dtype


def _blank(count: int, layout: Layout) -> np.ndarray:
    records = np.zeros(count, layout.dtype)
    records["label"] = np.nan if layout.label_dtype == "<f8" else -1
    records["attributes"] = np.nan
    for name in layout.images:
        records["images"][name]["spacing_mm"] = np.nan
    return records


def _united(names: tuple[str, ...], others: Iterable[str]) -> tuple[str, ...]:
    """All names, sorted; the same tuple when nothing is new, which is nearly always."""
    return names if all(name in names for name in others) else tuple(sorted({*names, *others}))
