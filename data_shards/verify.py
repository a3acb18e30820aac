"""Every checksum of a folder of shards, and which sample is behind one that fails."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from data_shards import tar
from data_shards.manifest import ShardEntry, read_manifest
from data_shards.reader import check_size, verified_index
from data_shards.sample import Image, Sample
from data_shards.support.errors import DataError
from data_shards.support.files import sha256_of
from data_shards.support.progress import Progress
from data_shards.vocabulary import Modality, Organ, Task


def verify(folder: Path, progress: Progress | None = None) -> list[str]:
    """Check sizes and SHA-256 of every shard and index against the manifest.

    Args:
        folder: what :func:`data_shards.writer.write_dataset` made.
        progress: is advanced by the samples of each shard.

    Returns:
        One line per damage, with the file and, where one can be named, the sample; empty when all is well.

    Raises:
        DataError: the manifest itself cannot be trusted.
    """
    manifest = read_manifest(folder)
    findings: list[str] = []
    for split, entry in manifest.splits.items():
        for shard in entry.shards:
            findings += _verify_shard(folder, shard, split)
            if progress is not None:
                progress.advance(shard.samples)
    return findings


def _verify_shard(folder: Path, shard: ShardEntry, split: str) -> list[str]:
    findings: list[str] = []
    records: np.ndarray | None = None
    try:
        records = verified_index(folder, shard)
    except DataError as error:
        findings.append(str(error))
    path = folder / shard.file
    try:
        check_size(path, shard.bytes)
        if sha256_of(path) == shard.sha256:
            return findings
    except DataError as error:
        findings.append(str(error))
    except OSError as error:
        return [*findings, f"{path}: cannot be read: {error.strerror or error}"]
    if records is None or not path.is_file():
        return [*findings, f"{path}: damaged; without its index no sample can be named"]
    damaged = _damaged_samples(path, records, split)
    return [*findings, *(damaged or [f"{path}: damaged after the last sample"])]


def _damaged_samples(path: Path, records: np.ndarray, split: str) -> list[str]:
    """Make each sample again from its index record and its pixels, and compare with what stands in the shard."""
    findings = []
    position = 0
    with open(path, "rb") as file:
        for number, record in enumerate(records):
            key = record["key"].decode()
            payloads = {name: _payload(file, record["images"][name]) for name in _names(record)}
            if any(len(payload) < record["images"][name]["bytes"] for name, payload in payloads.items()):
                findings.append(f"{path}: cut off in sample {key}; {len(records) - number} samples are lost")
                break
            expected = b"".join(map(tar.content, tar.members(_sample(record, payloads, split))))
            failed = [name for name in payloads if zlib.crc32(payloads[name]) != record["images"][name]["crc32"]]
            file.seek(position)
            if failed:
                findings.append(f"{path}: sample {key}: damaged: the pixels of {', '.join(failed)} fail their CRC-32")
            elif file.read(len(expected)) != expected:
                findings.append(f"{path}: sample {key}: damaged: a header, the metadata or padding")
            position += len(expected)
    return findings


def _names(record: np.void) -> list[str]:
    """The images that the study of a record has."""
    return [name for name in record["images"].dtype.names if record["images"][name]["bytes"]]


def _payload(file: BinaryIO, slot: np.void) -> bytes:
    file.seek(int(slot["offset"]))
    return file.read(int(slot["bytes"]))


def _sample(record: np.void, payloads: dict[str, bytes], split: str) -> Sample:
    images = {}
    for name, payload in payloads.items():
        slot = record["images"][name]
        pixels = np.frombuffer(payload, slot["dtype"].decode()).reshape(slot["shape"][slot["shape"] > 0])
        spacing_mm = tuple(float(value) for value in slot["spacing_mm"] if not np.isnan(value))
        images[name] = Image(pixels, Modality(int(slot["modality"])), spacing_mm)
    return Sample(
        key=record["key"].decode(),
        images=images,
        organ=Organ(int(record["organ"])),
        subject=record["subject"].decode(),
        split=split,
        label=record["label"] if record["labelled"] else None,
        task=Task(int(record["task"])),
    )
