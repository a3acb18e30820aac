"""Boxes of one image, read without the rest of it."""

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


class BoxReader:
    """Boxes of one image, each band that they lie in checked against its CRC-32.

    Of a large raw image only these bands are read, plane by plane: for a cube of a volume about its share of the depth
    times its share of the height. Any other image is read, checked and decoded as a whole, once.

    Args:
        shard: where it is.
        slot: its entry in the index.
        image: its name.
        row: number of its sample in the shard.
        name: of the sample, for messages.
        whole: see :meth:`~data_shards.reading.open_shard.OpenShard.pieces`.

    Attributes:
        shape: of the image, ``C,H,W`` or ``C,D,H,W``.

    Raises:
        DataError: the index of the shard is damaged.
    """

    def __init__(self, shard: OpenShard, slot: np.void, image: str, row: int, name: str, *, whole: bool) -> None:
        self.shape = tuple(int(size) for size in slot["shape"] if size)
        self._shard, self._slot, self._name, self._fetch_whole = shard, slot, name, whole
        self._dtype = np.dtype(bytes(slot["dtype"]).decode("ascii"))
        self._layout = Bands.of(self.shape, self._dtype.itemsize)
        self._expected = shard.bands(image, row, self._layout.planes * self._layout.of_plane)
        self._decoded: np.ndarray | None = None

    def __call__(self, box: Box) -> np.ndarray:
        """The voxels of a box.

        Args:
            box: inside the image.

        Returns:
            Shape ``C, *box.size``, the dtype of the image.

        Raises:
            DataError: the shard or the sample is damaged; the message names both.
        """
        if self._expected is None:
            if self._decoded is None:
                self._decoded = read_one(self._shard, self._slot, lambda _: self._name)
            return np.ascontiguousarray(self._decoded[box.slices])
        layout, width = self._layout, self.shape[-1]
        first, last = box.first[-2] // layout.rows, -(-(box.first[-2] + box.size[-2]) // layout.rows)
        planes = _planes(self.shape, box)
        spans = [_span(int(self._slot["offset"]), layout, plane, first, last) for plane in planes]
        lines = slice(box.first[-2] - first * layout.rows, box.first[-2] - first * layout.rows + box.size[-2])
        columns = slice(box.first[-1], box.first[-1] + box.size[-1])
        voxels = np.empty((len(planes), *box.size[-2:]), self._dtype)
        pieces = self._shard.pieces(spans, whole=self._fetch_whole)
        for place, (plane, piece) in enumerate(zip(planes, pieces, strict=True)):
            begin = plane * layout.of_plane
            if layout.checksums(piece) != self._expected[begin + first : begin + last].tolist():
                raise damaged(self._shard, self._name)
            voxels[place] = np.frombuffer(piece, self._dtype).reshape(-1, width)[lines, columns]
        return voxels.reshape(self.shape[0], *box.size)


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
