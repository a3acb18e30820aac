"""Members of a shard: plain ustar entries whose bytes depend on the samples and on nothing else."""

from __future__ import annotations

import io
import json
import tarfile
from typing import Any, NamedTuple

import numpy as np

from data_shards.sample import Sample
from data_shards.support.errors import DataError

BLOCK_BYTES = 512
TRAILER = bytes(tarfile.RECORDSIZE)


def npy_bytes(pixels: np.ndarray) -> tuple[bytes, bytes]:
    """Header and payload of the ``.npy`` form of an array: C order, little-endian, dtype otherwise its own."""
    array = np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("<"))
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    return header.getvalue(), array.tobytes()


def member_header(name: str, size: int) -> bytes:
    """The ustar header block of a regular file with fixed owner, mode and time.

    Raises:
        DataError: the name is too long for the format.
    """
    entry = tarfile.TarInfo(name)
    entry.size = size
    entry.mode = 0o644
    try:
        return entry.tobuf(format=tarfile.USTAR_FORMAT, encoding="ascii")
    except ValueError as error:
        raise DataError(f"shard member {name!r} does not fit the tar format: {error}") from None


def image_member(key: str, name: str) -> str:
    """The member that holds one image; a study with one image calls it ``image``, and its member ``KEY.npy``."""
    return f"{key}.npy" if name == "image" else f"{key}.{name}.npy"


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
    content |= described["image"] if set(described) == {"image"} else {"images": described}
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


class Member(NamedTuple):
    """One file of a shard.

    Attributes:
        image: the image it holds, None for the metadata.
        head: tar header and, for an image, the header of the ``.npy`` form.
        payload: raw pixels, or the metadata.
        tail: fills the last block.
    """

    image: str | None
    head: bytes
    payload: bytes
    tail: bytes


def members(sample: Sample) -> list[Member]:
    """The members of a sample in the order of the shard: images by name, then metadata.

    Raises:
        DataError: the key is too long for the format.
    """
    images = [
        _member(name, image_member(sample.key, name), *npy_bytes(sample.images[name].pixels))
        for name in sorted(sample.images)
    ]
    return [*images, _member(None, f"{sample.key}.json", b"", metadata_bytes(sample))]


def content(member: Member) -> bytes:
    """The bytes of a member as they stand in the shard."""
    return member.head + member.payload + member.tail


def _member(image: str | None, name: str, head: bytes, payload: bytes) -> Member:
    size = len(head) + len(payload)
    return Member(image, member_header(name, size) + head, payload, bytes(-size % BLOCK_BYTES))
