"""The files of one sample as they stand in its shard, found by the index and not by reading the tar from its start."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from isal.isal_zlib import crc32

from data_shards.format import tar
from data_shards.format.index import Codec
from data_shards.reading.open_shard import OpenShard
from data_shards.sample import Image, Sample
from data_shards.support.errors import DataError
from data_shards.vocabulary import Modality, Organ, Task


@dataclass(frozen=True)
class Members:
    """One sample.

    Attributes:
        key: what the names of its files have in common; in shards of others it may name a person.
        shard: address of the shard.
        files: content by suffix, in lower case as webdataset has it: ``npy``, ``t2w.npy``, ``json``.
        label: its label, None when it has none.
    """

    key: str
    shard: str
    files: dict[str, bytes]
    label: np.ndarray | None


def members_of(shard: OpenShard, row: int, split: str, attributes: Sequence[str], *, adopted: bool) -> Members:
    """The files of a sample; its pixels are checked against their CRC-32.

    Those of our own shards are made again from the index, which was verified, and from what holds the pixels, so all of
    them are checked; they are the same bytes. Of shards of others the part of the tar is read that holds the sample.

    Args:
        shard: where it is.
        row: its number in the shard.
        split: of the shard.
        attributes: names of the attributes, in the order of the columns of the index.
        adopted: whether other software wrote the shard.

    Raises:
        DataError: the shard or the sample is damaged.
    """
    record = shard.records[row]
    key = record["key"].decode()
    if adopted:
        files = _cut_out(shard, row, key)
    else:
        payloads = {name: _checked(shard, record["images"][name], f"sample {key}") for name in image_names(record)}
        files = {
            member.suffix.lower(): member.head[tar.BLOCK_BYTES :] + member.payload
            for member in made_again(record, payloads, split, attributes)
        }
    return Members(key, shard.name, files, record["label"].copy() if record["labelled"] else None)


def made_again(record: np.void, payloads: dict[str, bytes], split: str, attributes: Sequence[str]) -> list[tar.Member]:
    """The members of a record of one of our own shards.

    Args:
        record: of the index.
        payloads: by image name, what stands in the shard.
        split: of the shard.
        attributes: names of the columns ``attributes``.
    """
    gzipped = {name: payload for name, payload in payloads.items() if _is_gzipped(record["images"][name])}
    return tar.members(_sample(record, payloads, split, attributes), gzipped)


def _is_gzipped(slot: np.void) -> bool:
    return int(slot["codec"]) == Codec.npy_gzip


def _sample(record: np.void, payloads: dict[str, bytes], split: str, attributes: Sequence[str]) -> Sample:
    images = {}
    for name, payload in payloads.items():
        slot = record["images"][name]
        shape, dtype = tuple(slot["shape"][slot["shape"] > 0].tolist()), np.dtype(slot["dtype"].decode())
        # What is gzipped stays so; of its pixels only the form is looked at.
        zeros = np.broadcast_to(np.zeros((), dtype), shape)
        pixels = zeros if _is_gzipped(slot) else np.frombuffer(payload, dtype).reshape(shape)
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


def image_names(record: np.void) -> list[str]:
    """The images that the study of a record has."""
    return [name for name in record["images"].dtype.names if record["images"][name]["bytes"]]


def _checked(shard: OpenShard, slot: np.void, name: str) -> bytes:
    content = shard.read(int(slot["offset"]), int(slot["bytes"]))
    if crc32(content) != slot["crc32"]:
        raise DataError(f"{shard.name}: damaged: the pixels of {name} fail their CRC-32")
    return content.tobytes()


def _cut_out(shard: OpenShard, row: int, key: str) -> dict[str, bytes]:
    """The files of sample ``row``, which stand together, between the images of the samples beside it."""
    records = shard.records
    start = max(end for _, end in _extents(records[row - 1])) if row else 0
    start += -start % tar.BLOCK_BYTES
    stop = min(begin for begin, _ in _extents(records[row + 1])) if row + 1 < len(records) else shard.entry.bytes
    piece = shard.read(start, stop - start)
    for name in image_names(records[row]):
        slot = records[row]["images"][name]
        begin = int(slot["offset"]) - start
        if crc32(piece[begin : begin + int(slot["bytes"])]) != slot["crc32"]:
            raise DataError(f"{shard.name}: damaged: the pixels of sample number {row} fail their CRC-32")
    keys = [record["key"].decode() for record in records[max(0, row - 1) : row + 2]]
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(piece.data), mode="r:") as archive:
            for entry in archive:
                name = entry.name.removeprefix("./")
                # A key may begin with that of a neighbour and a dot.
                owner = max((other for other in keys if name.startswith(f"{other}.")), key=len, default=None)
                if owner == key and entry.isreg():
                    content = archive.extractfile(entry)
                    assert content is not None
                    files[name.removeprefix(f"{key}.").lower()] = content.read()
                elif files:
                    break  # the next sample, of which the piece has the beginning
    except tarfile.TarError as error:
        raise DataError(
            f"{shard.name}: damaged around sample number {row}: not the tar that was indexed ({type(error).__name__})"
        ) from None
    return files


def _extents(record: np.void) -> Iterator[tuple[int, int]]:
    """Where the images of a record begin and end in the tar."""
    for name in image_names(record):
        slot = record["images"][name]
        yield int(slot["offset"]), int(slot["offset"]) + int(slot["bytes"])
