"""Pixels of the samples of one shard, each checked against its CRC-32 before anybody sees it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from isal.isal_zlib import crc32

from data_shards.format.codecs import decode
from data_shards.format.index import Codec
from data_shards.reading.open_shard import OpenShard, checksums
from data_shards.support.errors import DataError

# Up to here copying out of the mapped file, many pieces in one call, is faster than a system call for each piece.
SMALL_BYTES = 16 << 10

# How messages call a sample, given its place among those that are read.
Name = Callable[[int], str]


def read_rows(shard: OpenShard, slots: np.ndarray, images: np.ndarray, places: np.ndarray, name: Name) -> None:
    """Read images of one shape and dtype into their rows of an array.

    Args:
        shard: where they are.
        slots: entries of the index, dtype :data:`~data_shards.format.index.IMAGE_DTYPE`, shape (n,).
        images: the array to fill, shape (B, ...), C order.
        places: the row of each image, shape (n,).
        name: of the sample of an entry.

    Raises:
        DataError: the shard or a sample is damaged, or holds another dtype than the array; the message names both.
    """
    strange = np.flatnonzero(slots["dtype"] != images.dtype.str.encode())
    if strange.size:
        found = slots["dtype"][strange[0]].decode()
        raise DataError(f"{shard.name}: {name(int(strange[0]))} holds {found}, the manifest says {images.dtype.str}")
    flat = images.reshape(len(images), -1).view(np.uint8)
    size = flat.shape[1]
    if not ((slots["codec"] == Codec.raw) & (slots["bytes"] == size)).all():
        for row, place in enumerate(places):
            images[place] = read_one(shard, slots[row], name, row)
    elif size <= SMALL_BYTES:
        pieces = shard.gather(slots["offset"], size)
        wrong = np.flatnonzero(checksums(pieces) != slots["crc32"])
        if wrong.size:
            raise damaged(shard, name(int(wrong[0])))
        flat[places] = pieces
    else:
        offsets, expected = slots["offset"], slots["crc32"]
        # In the order of the file: a disk likes it, and the page cache does not mind.
        for row in np.argsort(offsets, kind="stable"):
            piece = flat[places[row]]
            shard.read_into(piece, int(offsets[row]))
            if crc32(piece) != expected[row]:
                raise damaged(shard, name(int(row)))


def read_one(shard: OpenShard, slot: np.void, name: Name, row: int = 0) -> np.ndarray:
    """One image of any shape, dtype and codec.

    Raises:
        DataError: the shard or the sample is damaged; the message names both.
    """
    content = shard.read(int(slot["offset"]), int(slot["bytes"]))
    if crc32(content) != slot["crc32"]:
        raise damaged(shard, name(row))
    shape = tuple(int(size) for size in slot["shape"] if size)
    try:
        return decode(content.data, int(slot["codec"]), bytes(slot["dtype"]).decode("ascii"), shape)
    except DataError as error:
        raise DataError(f"{shard.name}: {name(row)}: {error}") from None


def damaged(shard: OpenShard, name: str) -> DataError:
    """What is raised where pixels are not those that were written."""
    return DataError(f"{shard.name}: damaged: the pixels of {name} fail their CRC-32")
