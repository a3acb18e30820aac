"""Every checksum of a folder of shards, and which sample is behind one that fails."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from isal.isal_zlib import crc32

from data_shards.format import tar
from data_shards.format.index import read_index
from data_shards.format.manifest import Manifest, ShardEntry, read_manifest
from data_shards.reading.members import image_names, made_again
from data_shards.storage.local import LocalFolder
from data_shards.support.descriptors import raise_out_of_files
from data_shards.support.errors import DataError
from data_shards.support.files import sha256_of
from data_shards.support.progress import Progress


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
        if sha256_of(folder / shard.index) != shard.index_sha256:
            raise DataError(f"{folder / shard.index}: damaged: its SHA-256 is not the one in the manifest")
        records = read_index(folder / shard.index, shard.samples)
    except DataError as error:
        findings.append(str(error))
    except OSError as error:
        raise_out_of_files(error)
        findings.append(f"{folder / shard.index}: cannot be read: {error.strerror or error}")
    path = folder / shard.file
    try:
        storage.local(shard.file, size=shard.bytes, sha256=shard.sha256)
        if sha256_of(path) == shard.sha256:
            return findings
    except DataError as error:
        findings.append(str(error))
    except OSError as error:
        raise_out_of_files(error)
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
        payloads = {name: _payload(file, record["images"][name]) for name in image_names(record)}
        if any(len(payload) < record["images"][name]["bytes"] for name, payload in payloads.items()):
            findings.append(f"{path}: cut off in sample {key}; {len(records) - number} samples are lost")
            break
        expected = b"".join(map(tar.content, made_again(record, payloads, split, attributes)))
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
        payloads = {name: _payload(file, record["images"][name]) for name in image_names(record)}
        if any(len(payload) < record["images"][name]["bytes"] for name, payload in payloads.items()):
            findings.append(f"{path}: cut off in sample number {number}; {len(records) - number} samples are lost")
            break
        failed = _failed(record, payloads)
        if failed:
            findings.append(f"{path}: sample number {number}: damaged: the pixels of {failed} fail their CRC-32")
    return findings


def _failed(record: np.void, payloads: dict[str, bytes]) -> str:
    return ", ".join(name for name in payloads if crc32(payloads[name]) != record["images"][name]["crc32"])


def _payload(file: BinaryIO, slot: np.void) -> bytes:
    file.seek(int(slot["offset"]))
    return file.read(int(slot["bytes"]))
