"""Indexing a set of tar files that stock webdataset wrote, in place, so that it streams as our own shards do."""

from __future__ import annotations

import dataclasses
import fnmatch
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from data_shards.card import DatasetCard
from data_shards.foreign.decode import ForeignDecoder
from data_shards.foreign.members import ForeignFields, foreign_samples
from data_shards.format.bands import bands_of_shard
from data_shards.format.index import Layout, Row, encode, widen, write_index
from data_shards.format.manifest import (
    FILE_NAME,
    SCHEMA_VERSION,
    LabelLayout,
    Manifest,
    ShardEntry,
    SplitEntry,
    write_manifest,
)
from data_shards.format.tar_walk import TarWalk
from data_shards.sample import SPLITS, Sample
from data_shards.support.errors import DataError, MedformerError
from data_shards.support.files import refuse_existing, sha256_of
from data_shards.support.progress import Progress
from data_shards.support.salt import read_salt
from data_shards.writing.ledger import ENTRY, Ledger, digest128
from data_shards.writing.statistics import SplitCounts

_COMPRESSED = ("*.tar.gz", "*.tgz", "*.tar.bz2", "*.tar.xz", "*.tar.zst")


class AdoptConfig(ForeignFields):
    """What a folder of foreign tar files holds."""

    card: DatasetCard = Field(description="the dataset in words")
    splits: dict[str, str] = Field(
        {}, description="pattern of file names, such as 'a-*.tar', to split; default: by train, val or test in the name"
    )
    salt_file: Path | None = Field(None, description="file with the salt of the subject hashes; default: the site's")


def adopt(folder: Path, config: AdoptConfig, *, overwrite: bool = False, progress: Progress | None = None) -> Manifest:
    """Write an index for every tar in ``folder``, and a manifest; the tars are only read.

    Every image is decoded once, so what is indexed can be read. Nothing appears before all tars have been read.

    Args:
        folder: a folder of uncompressed tar files.
        config: what they hold.
        overwrite: replace the indices and the manifest of an earlier call.
        progress: is advanced by one for each sample.

    Returns:
        The manifest that was written.

    Raises:
        MedformerError: there is a manifest already, or the disk refuses.
        DataError: a tar is damaged or has an entry that is refused, a sample cannot be read, a key occurs twice, a
            subject is in two splits, or there is nothing to index.
    """
    refuse_existing(folder / FILE_NAME, overwrite=overwrite)
    splits = _splits(folder, config.splits)
    try:
        with tempfile.TemporaryDirectory(prefix=".index-", dir=folder) as scratch:
            adoption = _Adoption(Path(scratch), config, read_salt(config.salt_file))
            for path, split in splits.items():
                adoption.add(path, split, progress)
            manifest = adoption.manifest()
            (folder / FILE_NAME).unlink(missing_ok=True)  # no manifest is better than one of other indices
            for entry in manifest.splits.values():
                for shard in entry.shards:
                    os.replace(Path(scratch) / shard.index, folder / shard.index)
            return write_manifest(folder, manifest)
    except OSError as error:
        raise MedformerError(f"cannot write {folder}: {error.strerror or error}") from error


def _splits(folder: Path, patterns: dict[str, str]) -> dict[Path, str]:
    """The split of each tar, sorted by name."""
    for pattern in _COMPRESSED:
        for path in sorted(folder.glob(pattern)):
            raise DataError(f"{path}: compressed; samples are found by position: unpack it to a plain .tar first")
    paths = sorted(folder.glob("*.tar"))
    if not paths:
        raise DataError(f"{folder}: no .tar file in it")
    return {path: _split(path, patterns) for path in paths}


def _split(path: Path, patterns: dict[str, str]) -> str:
    if patterns:
        found = [split for pattern, split in patterns.items() if fnmatch.fnmatchcase(path.name, pattern)]
    else:
        found = [split for split in SPLITS if split in path.name.lower()]
    if len(set(found)) != 1 or found[0] not in SPLITS:
        raise DataError(
            f"{path}: its split is not clear; expected one of {', '.join(SPLITS)} in the name, or say it with "
            f"splits.PATTERN=SPLIT (found {', '.join(found) or 'none'})"
        )
    return found[0]


@dataclass(frozen=True)
class _Shard:
    """A tar that was read; its index waits in the narrow layout for the final one."""

    path: Path
    split: str
    samples: int
    bytes: int
    sha256: str
    layout: Layout


class _Adoption:
    """Reads tar after tar; its memory holds the rows of one of them."""

    def __init__(self, scratch: Path, config: AdoptConfig, salt: str) -> None:
        self._scratch = scratch
        self._config = config
        self._decoder = ForeignDecoder(config, config.card, salt)
        self._counts: dict[str, SplitCounts] = {}
        self._vocabulary: dict[str, dict[str, int]] = {"organ": {}, "modality": {}, "dimensionality": {}, "task": {}}
        self._layout = Layout()
        self._shards: list[_Shard] = []
        self._position = 0
        self._ledgers = {kind: Ledger(scratch / kind) for kind in ("keys", "subjects", "contents")}

    def add(self, path: Path, split: str, progress: Progress | None) -> None:
        """Read one tar."""
        walk = TarWalk(path, self._config.wanted_bytes)
        rows: list[Row] = []
        layout = Layout()
        entries: dict[str, list[Any]] = {kind: [] for kind in self._ledgers}
        counts = self._counts.setdefault(split, SplitCounts())
        for found in foreign_samples(walk, self._config):
            try:
                sample, slots = self._decoder.decode(found, split, self._position)
                layout = layout.with_sample(sample)
            except DataError as error:
                raise DataError(f"{path}: {error}") from None
            layout = dataclasses.replace(layout, key_bytes=max(layout.key_bytes, len(found.key)))
            ids = int(sample.organ), int(sample.task)
            rows.append(Row(found.key, sample.subject, sample.label, *ids, slots, sample.attributes))
            counts.add(sample)
            self._note(sample, found.key, entries)
            self._position += 1
            if progress is not None:
                progress.advance()
        for kind, ledger in self._ledgers.items():
            ledger.append(np.array(entries[kind], ENTRY))
        np.save(self._scratch / f"{path.name}.rows.npy", encode(rows, layout))
        try:
            self._layout = self._layout.merged(layout)
        except DataError as error:
            raise DataError(f"{path}: {error}") from None
        self._shards.append(_Shard(path, split, len(rows), walk.bytes, walk.sha256, layout))

    def manifest(self) -> Manifest:
        """The manifest; the final indices lie in the scratch folder then."""
        if not self._position:
            raise DataError(
                f"{self._shards[0].path.parent}: no sample with {', '.join(self._config.images)} in any tar"
            )
        self._check_repeats()
        contents = self._ledgers["contents"].repeats(keep=0)
        subjects = self._ledgers["subjects"].repeats(keep=0).distinct
        shards: dict[str, list[ShardEntry]] = {}
        for shard in self._shards:
            shards.setdefault(shard.split, []).append(self._entry(shard))
        return Manifest(
            schema_version=SCHEMA_VERSION,
            card=self._config.card,
            vocabulary=self._vocabulary,
            label=LabelLayout(width=self._layout.label_width, dtype=self._layout.label_dtype),
            attributes=self._layout.attributes,
            adopted=True,
            splits={
                split: SplitEntry(
                    samples=counts.samples,
                    subjects=subjects.get(split, 0),
                    classes=dict(sorted(counts.classes.items())),
                    images=counts.layouts(),
                    shards=tuple(shards[split]),
                )
                for split, counts in self._counts.items()
            },
            shared_images=contents.shared,
            repeated_images=contents.repeated,
        )

    def _note(self, sample: Sample, key: str, entries: dict[str, list[Any]]) -> None:
        place = SPLITS.index(sample.split), self._position
        entries["keys"].append((*digest128(key.encode()), *place))
        entries["subjects"].append((*digest128(sample.subject.encode()), *place))
        for image in sample.images.values():
            pixels = np.ascontiguousarray(image.pixels)
            form = f"{pixels.dtype.str}{pixels.shape}".encode()
            entries["contents"].append((*digest128(form, pixels.reshape(-1).view(np.uint8).data), *place))
            self._vocabulary["dimensionality"][image.dimensionality.name] = int(image.dimensionality)
            self._vocabulary["modality"][image.modality.name] = int(image.modality)
        self._vocabulary["organ"][sample.organ.name] = int(sample.organ)
        self._vocabulary["task"][sample.task.name] = int(sample.task)

    def _check_repeats(self) -> None:
        keys = self._ledgers["keys"].repeats(keep=1)
        if keys.again.size:
            raise DataError(f"{self._place(int(keys.again[0]))} has the key of {self._place(int(keys.first[0]))}")
        subjects = self._ledgers["subjects"].repeats(keep=1, crossing_only=True)
        if subjects.again.size:
            home, other = self._place(int(subjects.first[0])), self._place(int(subjects.again[0]))
            raise DataError(f"{other} has the subject of {home} in another split; splits are by subject")

    def _place(self, position: int) -> str:
        """A sample by its shard and its number there, from 0."""
        for shard in self._shards:
            if position < shard.samples:
                return f"{shard.path}: sample number {position}"
            position -= shard.samples
        raise IndexError(position)

    def _entry(self, shard: _Shard) -> ShardEntry:
        rows = self._scratch / f"{shard.path.name}.rows.npy"
        path = self._scratch / f"{shard.path.stem}.index.npy"
        records = widen(np.load(rows), shard.layout, self._layout)
        write_index(path, records, bands_of_shard(shard.path, records))
        return ShardEntry(
            file=shard.path.name,
            samples=shard.samples,
            bytes=shard.bytes,
            sha256=shard.sha256,
            index=path.name,
            index_bytes=path.stat().st_size,
            index_sha256=sha256_of(path),
        )
