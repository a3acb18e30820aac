"""A run of neighbouring samples, encoded in one go by one process: what the writer then only has to append."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from isal.isal_zlib import crc32

from data_shards.format import tar
from data_shards.format.index import Codec, ImageEntry, Layout, Row, encode
from data_shards.sample import MASK, SPLITS, Sample
from data_shards.sources.base import Skipped, Source
from data_shards.support.descriptors import raise_out_of_files
from data_shards.support.errors import DataError
from data_shards.writing.ledger import ENTRY, digest128
from data_shards.writing.notes import Notes
from data_shards.writing.statistics import SplitCounts

Vocabulary = dict[str, dict[str, int]]

# A chunk ends early when it is this large: images may be far larger than the one from which the length was taken.
_LARGEST = 32 << 20


@dataclass
class SplitChunk:
    """The samples of one split.

    Attributes:
        content: their tar members, one after the other; from another process, a view that is valid until the next
            chunk is asked for.
        ends: where each sample ends in ``content``.
        layout: of the records.
        records: of the index, with offsets from the start of ``content``.
        counts: statistics.
    """

    content: bytes | memoryview
    ends: np.ndarray
    layout: Layout
    records: np.ndarray
    counts: SplitCounts


@dataclass
class Chunk:
    """What became of the positions from ``first`` to ``last - 1``.

    Attributes:
        splits: the samples by split.
        keys: ledger entries of the sample keys.
        subjects: of the subjects.
        contents: of the pixels; one for each image.
        vocabulary: entries that occur.
        skipped: positions that could not be read.
        notes: what readers noted of the others.
    """

    first: int
    last: int
    splits: dict[str, SplitChunk]
    keys: np.ndarray
    subjects: np.ndarray
    contents: np.ndarray
    vocabulary: Vocabulary
    skipped: list[Skipped]
    notes: Notes = field(default_factory=Notes)


@dataclass
class _Draft:
    """A split chunk that grows."""

    compress: bool
    parts: list[bytes] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    size: int = 0
    layout: Layout = field(default_factory=Layout)
    rows: list[Row] = field(default_factory=list)
    counts: SplitCounts = field(default_factory=SplitCounts)

    def add(self, sample: Sample) -> None:
        entries: dict[str, ImageEntry] = {}
        gzipped = {name: tar.packed(image.pixels) for name, image in sample.images.items()} if self.compress else {}
        for member in tar.members(sample, gzipped):
            if member.image is not None:
                image = sample.images[member.image]
                entries[member.image] = ImageEntry(
                    offset=self.size + len(member.head),
                    bytes=len(member.payload),
                    crc32=crc32(member.payload),
                    dtype=image.pixels.dtype.newbyteorder("<").str,
                    shape=image.pixels.shape,
                    spacing_mm=image.spacing_mm,
                    modality=int(image.modality),
                    codec=Codec.npy_gzip if member.image in gzipped else Codec.raw,
                )
            self.parts += member.head, member.payload, member.tail
            self.size += len(member.head) + len(member.payload) + len(member.tail)
        self.ends.append(self.size)
        self.layout = self.layout.with_sample(sample)
        ids = int(sample.organ), int(sample.task)
        self.rows.append(Row(sample.key, sample.subject, sample.label, *ids, entries, sample.attributes))
        self.counts.add(sample)

    def done(self) -> SplitChunk:
        records = encode(self.rows, self.layout)
        return SplitChunk(b"".join(self.parts), np.array(self.ends, np.int64), self.layout, records, self.counts)


def encode_chunk(source: Source, positions: Sequence[int], *, skip_errors: bool, compress: bool = False) -> Chunk:
    """Read and encode the samples at ``positions``, a run without gaps.

    Args:
        source: where they come from.
        positions: which; the chunk ends before the last of them when it becomes too large.
        skip_errors: list what cannot be read instead of stopping.
        compress: store images as ``.npy.gz``.

    Raises:
        DataError: a sample cannot be read or stored, and ``skip_errors`` is false.
    """
    drafts: dict[str, _Draft] = {}
    keys, subjects, contents = [], [], []
    words: set[tuple[IntEnum, ...]] = set()
    skipped = []
    notes = Notes()
    last = positions[0]
    for position in positions:
        if sum(draft.size for draft in drafts.values()) > _LARGEST:
            break
        last = position + 1
        try:
            sample = read_sample(source, position)
        except DataError as error:
            if not skip_errors:
                raise
            skipped.append(
                Skipped(source.name_of(position), _without_name(str(error), source.name_of(position)), lost=True)
            )
            continue
        notes.add(source.name_of(position), sample)
        drafts.setdefault(sample.split, _Draft(compress)).add(sample)
        split = SPLITS.index(sample.split)
        keys.append((*digest128(sample.key.encode()), split, position))
        subjects.append((*digest128(sample.subject.encode()), split, position))
        for name, image in sample.images.items():
            if name != MASK:  # many are empty, and so the same
                pixels = np.ascontiguousarray(image.pixels)
                form = f"{pixels.dtype.str}{pixels.shape}".encode()
                contents.append((*digest128(form, pixels.reshape(-1).view(np.uint8).data), split, position))
            words.add((sample.organ, sample.task, image.modality, image.dimensionality))
    return Chunk(
        first=positions[0],
        last=last,
        splits={split: draft.done() for split, draft in drafts.items()},
        keys=np.array(keys, ENTRY),
        subjects=np.array(subjects, ENTRY),
        contents=np.array(contents, ENTRY),
        vocabulary=_vocabulary(words),
        skipped=skipped,
        notes=notes,
    )


def read_sample(source: Source, position: int) -> Sample:
    """The sample at ``position``, fit to be stored.

    Raises:
        DataError: it cannot be read, or has values that are not finite; the message begins with the item's name.
        OutOfFiles: too many files are open; the item may be sound.
    """
    name = source.name_of(position)
    try:
        sample = source.sample(position)
        for image_name, image in sample.images.items():
            if image.pixels.dtype.kind == "f" and not np.isfinite(image.pixels).all():
                raise DataError(f"sample {sample.key}: image {image_name!r} has values that are not finite")
    except DataError as error:
        raise_out_of_files(error)
        raise DataError(f"{name}: {_without_name(str(error), name)}") from error
    except MemoryError:
        raise DataError(f"{name}: not enough memory to read it") from None
    except Exception as error:
        raise_out_of_files(error)
        # A decoder may raise anything on a damaged file, and its text may quote the file: only the kind is told.
        raise DataError(f"{name}: cannot be read ({type(error).__name__})") from error
    return sample


def _without_name(message: str, name: str) -> str:
    return message.removeprefix(f"{name}: ")


def _vocabulary(words: set[tuple[IntEnum, ...]]) -> Vocabulary:
    entries: Vocabulary = {"organ": {}, "modality": {}, "dimensionality": {}, "task": {}}
    # IntEnum members of different enumerations may be equal as numbers, so they are told apart by their type.
    for kind, word in {(type(word), word) for together in words for word in together}:
        entries[kind.__name__.lower()][word.name] = int(word)
    return entries
