"""What the tests do to folders of shards."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_shards.format.index import write_index
from data_shards.format.manifest import Manifest, ShardEntry, write_manifest
from data_shards.format.tar import TRAILER
from data_shards.reading.reader import ShardedDataset
from data_shards.reading.records import Records


def whole_split(folder: Path, split: str) -> Records:
    """Every sample of a split, in index order."""
    dataset = ShardedDataset(folder, split)
    return dataset.read(np.arange(len(dataset)))


def with_an_empty_shard(folder: Path, manifest: Manifest, *, places: Sequence[int]) -> Manifest:
    """Put shards without a sample in front of the training shards at ``places``; a tar can be empty."""
    entry = manifest.splits["train"]
    dtype = np.load(folder / entry.shards[0].index).dtype
    shards = list(entry.shards)
    for number, place in enumerate(places):
        tar, index = folder / f"empty-{number}.tar", folder / f"empty-{number}.index.npy"
        tar.write_bytes(TRAILER)
        write_index(index, np.zeros(0, dtype))
        shards.insert(place, _entry(tar, index))
    changed = entry.model_copy(update={"shards": tuple(shards)})
    return write_manifest(folder, manifest.model_copy(update={"splits": {**manifest.splits, "train": changed}}))


def _entry(tar: Path, index: Path) -> ShardEntry:
    content, records = tar.read_bytes(), index.read_bytes()
    return ShardEntry(
        file=tar.name,
        samples=0,
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        index=index.name,
        index_bytes=len(records),
        index_sha256=hashlib.sha256(records).hexdigest(),
    )
