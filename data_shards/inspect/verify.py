"""Every checksum of a folder of shards, and which sample is behind one that fails."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from isal.isal_zlib import crc32

from data_shards.format import tar
from data_shards.format.manifest import Manifest, ShardEntry, read_manifest
from data_shards.reading.open_shard import verified_index
from data_shards.sample import Image, Sample
from data_shards.storage.local import LocalFolder
from data_shards.support.errors import DataError
from data_shards.support.files import sha256_of
from data_shards.support.progress import Progress
from data_shards.vocabulary import Modality, Organ, Task


def verify(folder: Path, progress: Progress | None = None) -> list[str]:
    """Check sizes and SHA-256 of every shard and index against the manifest.

    Args:
        folder: a folder of shards on this machine, written or adopted.
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
            findings += _verify_shard(folder, shard, split, manifest)
            if progress is not None:
                progress.advance(shard.samples)
    return findings


def _verify_shard(folder: Path, shard: ShardEntry, split: str, manifest: Manifest) -> list[str]:
    findings: list[str] = []
    records: np.ndarray | None = None
    storage = LocalFolder(folder)
    try:
        storage.local(shard.index, size=shard.index_bytes, sha256=shard.index_sha256)
        records = verified_index(folder / shard.index, shard, str(folder / shard.index))
    except DataError as error:
        findings.append(str(error))
    path = folder / shard.file
    try:
        storage.local(shard.file, size=shard.bytes, sha256=shard.sha256)
        if sha256_of(path) == shard.sha256:
            return findings
    except DataError as error:
        findings.append(str(error))
    except OSError as error:
        return [*findings, f"{path}: cannot be read: {error.strerror or error}"]
    if records is None or not path.is_file():
        return [*findings, f"{path}: damaged; without its index no sample can be named"]
    with open(path, "rb") as file:
        if manifest.adopted:
            damaged = _damaged_pixels(path, file, records)
            return [*findings, *(damaged or [f"{path}: damaged outside of the pixels of its samples"])]
        damaged = _damaged_samples(path, file, records, split, manifest.attributes)
    return [*findings, *(damaged or [f"{path}: damaged after the last sample"])]


def _damaged_samples(
    path: Path, file: BinaryIO, records: np.ndarray, split: str, attributes: Sequence[str]
) -> list[str]:
    """Make each sample again from its index record and its pixels, and compare with what stands in the shard."""
    findings = []
    position = 0
    for number, record in enumerate(records):
        key = record["key"].decode()
        payloads = {name: _payload(file, record["images"][name]) for name in _names(record)}
        if any(len(payload) < record["images"][name]["bytes"] for name, payload in payloads.items()):
            findings.append(f"{path}: cut off in sample {key}; {len(records) - number} samples are lost")
            break
        expected = b"".join(map(tar.content, tar.members(_sample(record, payloads, split, attributes))))
        failed = _failed(record, payloads)
        file.seek(position)
        if failed:
            findings.append(f"{path}: sample {key}: damaged: the pixels of {failed} fail their CRC-32")
        elif file.read(len(expected)) != expected:
            findings.append(f"{path}: sample {key}: damaged: a header, the metadata or padding")
        position += len(expected)
    return findings


def _damaged_pixels(path: Path, file: BinaryIO, records: np.ndarray) -> list[str]:
    """The samples of an adopted shard whose pixels fail; its other bytes cannot be made again, its keys may be names.

    Samples are counted from 0 within the shard.
    """
    findings = []
    for number, record in enumerate(records):
        payloads = {name: _payload(file, record["images"][name]) for name in _names(record)}
        if any(len(payload) < record["images"][name]["bytes"] for name, payload in payloads.items()):
            findings.append(f"{path}: cut off in sample number {number}; {len(records) - number} samples are lost")
            break
        failed = _failed(record, payloads)
        if failed:
            findings.append(f"{path}: sample number {number}: damaged: the pixels of {failed} fail their CRC-32")
    return findings


def _failed(record: np.void, payloads: dict[str, bytes]) -> str:
    return ", ".join(name for name in payloads if crc32(payloads[name]) != record["images"][name]["crc32"])


def _names(record: np.void) -> list[str]:
    """The images that the study of a record has."""
    return [name for name in record["images"].dtype.names if record["images"][name]["bytes"]]


def _payload(file: BinaryIO, slot: np.void) -> bytes:
    file.seek(int(slot["offset"]))
    return file.read(int(slot["bytes"]))


def _sample(record: np.void, payloads: dict[str, bytes], split: str, attributes: Sequence[str]) -> Sample:
    images = {}
    for name, payload in payloads.items():
        slot = record["images"][name]
        pixels = np.frombuffer(payload, slot["dtype"].decode()).reshape(slot["shape"][slot["shape"] > 0])
        spacing_mm = tuple(float(value) for value in slot["spacing_mm"] if not np.isnan(value))
        images[name] = Image(pixels, Modality(int(slot["modality"])), spacing_mm)
    values = dict(zip(attributes, record["attributes"].tolist(), strict=True))
    return Sample(
        key=record["key"].decode(),
        images=images,
        organ=Organ(int(record["organ"])),
        subject=record["subject"].decode(),
        split=split,
        label=record["label"] if record["labelled"] else None,
        task=Task(int(record["task"])),
        attributes={name: value for name, value in values.items() if not np.isnan(value)},
    )
