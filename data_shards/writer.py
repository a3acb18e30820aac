"""Turns a source into shards, indices and a manifest, byte for byte the same every time."""

from __future__ import annotations

import contextlib
import hashlib
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from data_shards import tar
from data_shards.audit import Audit
from data_shards.index import ImageEntry, Layout, Row, encode, read_index, widen, write_index
from data_shards.manifest import SCHEMA_VERSION, LabelLayout, Manifest, ShardEntry, SplitEntry, write_manifest
from data_shards.sample import SPLITS, Sample
from data_shards.sources.base import Source
from data_shards.support.errors import DataError
from data_shards.support.files import new_folder, sha256_of
from data_shards.support.progress import Progress

SHARD_BYTES = 64 << 20


def write_dataset(
    source: Source,
    out: Path,
    *,
    shard_bytes: int = SHARD_BYTES,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """Write every sample of ``source`` below ``out``, in the order of the source within each split.

    Pixels are held one sample at a time. The folder appears when it is complete; the same source gives the same bytes.

    Args:
        source: where the samples come from.
        out: the folder to make.
        shard_bytes: a shard is closed before it would grow larger; one sample may exceed it alone.
        overwrite: replace ``out`` when it exists.
        progress: is advanced by one for each sample.

    Returns:
        The manifest that was written.

    Raises:
        MedformerError: ``out`` exists or the disk refuses.
        DataError: a key occurs twice, a subject is in two splits, a sample cannot be stored, or there is none.
    """
    if shard_bytes < 1:
        raise DataError(f"shards of {shard_bytes} bytes cannot be written; at least 1")
    name = source.card.name
    with new_folder(out, overwrite=overwrite) as folder, contextlib.ExitStack() as files:
        audit = Audit()
        layout = Layout()
        open_shards: dict[str, _Shard] = {}
        closed: dict[str, list[ShardEntry]] = {}
        for sample in source:
            audit.add(sample)
            layout = layout.with_sample(sample)
            members = tar.members(sample)
            shard = open_shards.get(sample.split)
            if shard is not None and shard.size + sum(map(_size, members)) + len(tar.TRAILER) > shard_bytes:
                closed[sample.split].append(shard.close(layout))
                shard = None
            if shard is None:
                number = len(closed.setdefault(sample.split, []))
                shard = open_shards[sample.split] = _Shard(folder, f"{name}-{sample.split}-{number:06d}", files)
            shard.add(sample, members)
            if progress is not None:
                progress.advance()
        for split, shard in open_shards.items():
            closed[split].append(shard.close(layout))
        if not closed:
            raise DataError(f"{name}: the source has no samples")
        return write_manifest(folder, _manifest(source, audit, layout, _widened(closed, layout, folder)))


class _Shard:
    """A tar file that is being written, and the rows of its index."""

    def __init__(self, folder: Path, stem: str, files: contextlib.ExitStack) -> None:
        self.size = 0
        self._path = folder / f"{stem}.tar"
        self._file: BinaryIO = files.enter_context(self._path.open("wb"))
        self._digest = hashlib.sha256()
        self._rows: list[Row] = []

    def add(self, sample: Sample, members: Sequence[tar.Member]) -> None:
        """Append the members of one sample."""
        entries: dict[str, ImageEntry] = {}
        for member in members:
            if member.image is not None:
                image = sample.images[member.image]
                entries[member.image] = ImageEntry(
                    offset=self.size + len(member.head),
                    bytes=len(member.payload),
                    crc32=zlib.crc32(member.payload),
                    dtype=image.pixels.dtype.newbyteorder("<").str,
                    shape=image.pixels.shape,
                    spacing_mm=image.spacing_mm,
                    modality=int(image.modality),
                )
            self._write(tar.content(member))
        self._rows.append(Row(sample.key, sample.subject, sample.label, int(sample.organ), int(sample.task), entries))

    def close(self, layout: Layout) -> ShardEntry:
        """Finish the tar file and write its index in the layout known so far."""
        self._write(tar.TRAILER)
        self._file.close()
        index = self._path.with_suffix(".index.npy")
        write_index(index, encode(self._rows, layout))
        return ShardEntry(
            file=self._path.name,
            samples=len(self._rows),
            bytes=self.size,
            sha256=self._digest.hexdigest(),
            index=index.name,
            index_bytes=0,
            index_sha256="",
        )

    def _write(self, content: bytes) -> None:
        self._file.write(content)
        self._digest.update(content)
        self.size += len(content)


def _size(member: tar.Member) -> int:
    return len(member.head) + len(member.payload) + len(member.tail)


def _widened(closed: dict[str, list[ShardEntry]], layout: Layout, folder: Path) -> dict[str, list[ShardEntry]]:
    """Bring every index to the final layout; only now is it known how wide keys and labels are."""
    return {split: [_final(entry, layout, folder) for entry in entries] for split, entries in closed.items()}


def _final(entry: ShardEntry, layout: Layout, folder: Path) -> ShardEntry:
    path = folder / entry.index
    records: np.ndarray = read_index(path, entry.samples)
    if records.dtype != layout.dtype:
        write_index(path, widen(records, layout))
    return entry.model_copy(update={"index_bytes": path.stat().st_size, "index_sha256": sha256_of(path)})


def _manifest(source: Source, audit: Audit, layout: Layout, shards: dict[str, list[ShardEntry]]) -> Manifest:
    splits = {
        split: SplitEntry(
            samples=counts.samples,
            subjects=counts.subjects,
            classes=dict(sorted(counts.classes.items())),
            images=counts.layouts(),
            shards=tuple(shards[split]),
        )
        for split, counts in sorted(audit.splits.items(), key=lambda item: SPLITS.index(item[0]))
    }
    return Manifest(
        schema_version=SCHEMA_VERSION,
        card=source.card,
        vocabulary=audit.vocabulary,
        label=LabelLayout(width=layout.label_width, dtype=layout.label_dtype),
        splits=splits,
        shared_images=audit.shared_images(),
    )
