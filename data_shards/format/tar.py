"""Members of a shard: plain ustar entries whose bytes depend on the samples and on nothing else."""

from __future__ import annotations

import functools
import io
import json
import tarfile
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from data_shards.sample import Sample
from data_shards.support.errors import DataError

BLOCK_BYTES = 512
TRAILER = bytes(tarfile.RECORDSIZE)

# Fields of a ustar header (POSIX.1-1988): the name comes first, the checksum counts itself as eight spaces.
_NAME_BYTES = 100
_CHECKSUM = slice(148, 156)
_TOO_LARGE = 8**11

# Of gzip, whose header zlib writes without name and time (RFC 1952).
_LEVEL, _GZIP = 6, 31

_JSON = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


def npy_bytes(pixels: np.ndarray) -> tuple[bytes, bytes]:
    """Header and payload of the ``.npy`` form of an array: C order, little-endian, dtype otherwise its own."""
    array = np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("<"))
    return _npy_header(array.dtype.str, array.shape), array.tobytes()


def packed(pixels: np.ndarray) -> bytes:
    """The ``.npy.gz`` form of an array: the same bytes for the same version of zlib."""
    return zlib.compress(b"".join(npy_bytes(pixels)), _LEVEL, _GZIP)


@functools.lru_cache(256)
def _npy_header(descr: str, shape: tuple[int, ...]) -> bytes:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": descr, "fortran_order": False, "shape": shape})
    return header.getvalue()


def member_header(name: str, size: int) -> bytes:
    """The ustar header block of a regular file with fixed owner, mode and time.

    Raises:
        DataError: the name is too long for the format.
    """
    if len(name) <= _NAME_BYTES and name.isascii() and size < _TOO_LARGE:
        return _stamped(_blank_header(size), name.encode())
    return _tarfile_header(name, size)


def _tarfile_header(name: str, size: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size = size
    entry.mode = 0o644
    try:
        return entry.tobuf(format=tarfile.USTAR_FORMAT, encoding="ascii")
    except ValueError as error:
        raise DataError(f"shard member {name!r} does not fit the tar format: {error}") from None


@functools.lru_cache(1024)
def _blank_header(size: int) -> tuple[bytes, int]:
    """The header of a member of ``size`` bytes behind its name, and the sum of its bytes with a blank checksum."""
    header = bytearray(_tarfile_header("x", size))
    header[_CHECKSUM] = b" " * 8
    return bytes(header[_NAME_BYTES:]), sum(header[_NAME_BYTES:])


def _stamped(blank: tuple[bytes, int], name: bytes) -> bytes:
    """Name and checksum put into a header: many times faster than :mod:`tarfile`, which gives the same bytes."""
    rest, total = blank
    checksum = b"%06o\0 " % (total + sum(name))
    start = _CHECKSUM.start - _NAME_BYTES
    return b"".join((name.ljust(_NAME_BYTES, b"\0"), rest[:start], checksum, rest[start + 8 :]))


def metadata_bytes(sample: Sample) -> bytes:
    """The ``KEY.json`` member of a sample: what is known beside the pixels, with vocabulary names."""
    described = {
        name: {"modality": image.modality.name, "spacing_mm": list(image.spacing_mm)}
        for name, image in sample.images.items()
    }
    content: dict[str, Any] = {
        "label": None if sample.label is None else sample.label.tolist(),
        "organ": sample.organ.name,
        "split": sample.split,
        "subject": sample.subject,
        "task": sample.task.name,
    }
    if sample.attributes:
        content["attributes"] = dict(sample.attributes)
    content |= described["image"] if set(described) == {"image"} else {"images": described}
    return _JSON.encode(content).encode()


class Member(NamedTuple):
    """One file of a shard.

    Attributes:
        image: the image it holds, None for the metadata.
        suffix: what follows the key and a dot in its name.
        head: tar header and, for an image, the header of the ``.npy`` form.
        payload: raw pixels, a whole ``.npy.gz``, or the metadata.
        tail: fills the last block.
    """

    image: str | None
    suffix: str
    head: bytes
    payload: bytes
    tail: bytes


def members(sample: Sample, gzipped: Mapping[str, bytes] | None = None) -> list[Member]:
    """The members of a sample in the order of the shard: images by name, then metadata.

    A study with one image calls it ``image``, and its member ``KEY.npy``; others are ``KEY.NAME.npy``.

    Args:
        sample: what is to be stored.
        gzipped: of images by name, what :func:`packed` made of their pixels, to be stored as ``.npy.gz``.

    Raises:
        DataError: the key is too long for the format.
    """
    gzipped = gzipped or {}
    found = []
    for name in sorted(sample.images):
        suffix = "npy" if name == "image" else f"{name}.npy"
        if name in gzipped:
            found.append(_member(sample.key, name, f"{suffix}.gz", b"", gzipped[name]))
        else:
            found.append(_member(sample.key, name, suffix, *npy_bytes(sample.images[name].pixels)))
    return [*found, _member(sample.key, None, "json", b"", metadata_bytes(sample))]


def content(member: Member) -> bytes:
    """The bytes of a member as they stand in the shard."""
    return member.head + member.payload + member.tail


def _member(key: str, image: str | None, suffix: str, head: bytes, payload: bytes) -> Member:
    size = len(head) + len(payload)
    return Member(image, suffix, member_header(f"{key}.{suffix}", size) + head, payload, bytes(-size % BLOCK_BYTES))
