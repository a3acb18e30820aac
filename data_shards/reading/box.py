"""A box of one image, read without the rest of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data_shards.format.bands import Bands
from data_shards.reading.open_shard import OpenShard
from data_shards.reading.pixels import damaged, read_one
from data_shards.storage.base import Span


@dataclass(frozen=True)
class Box:
    """Neighbouring voxels.

    Attributes:
        first: the first voxel along H,W or D,H,W.
        size: voxels along each axis.
    """

    first: tuple[int, ...]
    size: tuple[int, ...]

    @property
    def slices(self) -> tuple[slice, ...]:
        """For an array ``C,H,W`` or ``C,D,H,W``."""
        pairs = zip(self.first, self.size, strict=True)
        return (slice(None), *(slice(start, start + length) for start, length in pairs))


def read_box(shard: OpenShard, slot: np.void, image: str, row: int, box: Box, name: str, *, whole: bool) -> np.ndarray:
    """The voxels of a box, each band that they lie in checked against its CRC-32.

    Of a large raw image only these bands are read, plane by plane: for a cube of a volume about its share of the depth
    times its share of the height. Any other image is read, checked and decoded as a whole.

    Args:
        shard: where it is.
        slot: its entry in the index.
        image: its name.
        row: number of its sample in the shard.
        box: inside the image.
        name: of the sample, for messages.
        whole: see :meth:`~data_shards.reading.open_shard.OpenShard.pieces`.

    Returns:
        Shape ``C, *box.size``, the dtype of the image.

    Raises:
        DataError: the shard or the sample is damaged; the message names both.
    """
    shape = tuple(int(size) for size in slot["shape"] if size)
    dtype = np.dtype(bytes(slot["dtype"]).decode("ascii"))
    layout = Bands.of(shape, dtype.itemsize)
    expected = shard.bands(image, row, layout.planes * layout.of_plane)
    if expected is None:
        return np.ascontiguousarray(read_one(shard, slot, lambda _: name)[box.slices])
    first, last = box.first[-2] // layout.rows, -(-(box.first[-2] + box.size[-2]) // layout.rows)
    planes = _planes(shape, box)
    spans = [_span(int(slot["offset"]), layout, plane, first, last) for plane in planes]
    lines = slice(box.first[-2] - first * layout.rows, box.first[-2] - first * layout.rows + box.size[-2])
    columns = slice(box.first[-1], box.first[-1] + box.size[-1])
    voxels = np.empty((len(planes), *box.size[-2:]), dtype)
    for place, (plane, piece) in enumerate(zip(planes, shard.pieces(spans, whole=whole), strict=True)):
        begin = plane * layout.of_plane
        if layout.checksums(piece) != expected[begin + first : begin + last].tolist():
            raise damaged(shard, name)
        voxels[place] = np.frombuffer(piece, dtype).reshape(-1, shape[-1])[lines, columns]
    return voxels.reshape(shape[0], *box.size)


def _planes(shape: Sequence[int], box: Box) -> list[int]:
    """The planes of an image ``C,H,W`` or ``C,D,H,W`` that a box meets, in the order of the file."""
    depth = shape[1] if len(shape) == 4 else 1
    deep = range(box.first[0], box.first[0] + box.size[0]) if len(shape) == 4 else range(1)
    return [channel * depth + place for channel in range(shape[0]) for place in deep]


def _span(offset: int, layout: Bands, plane: int, first: int, last: int) -> Span:
    """The bytes of the bands ``first`` to ``last - 1`` of a plane."""
    begin = offset + plane * layout.lines * layout.line_bytes
    stop = min(last * layout.rows, layout.lines)
    return begin + first * layout.rows * layout.line_bytes, begin + stop * layout.line_bytes
