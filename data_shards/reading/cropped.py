"""A split of volumes of which crops are shown, each read without the rest of its volume."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer

from data_shards.intensity import Rule, foreground_of
from data_shards.order.places import places, shares
from data_shards.reading.box import Box, BoxReader
from data_shards.reading.foreground import NUMBERS, foreground_voxel
from data_shards.reading.reader import Columns, ShardedDataset
from data_shards.reading.records import Records
from data_shards.storage import Cache
from data_shards.support.documents import Document, Sides
from data_shards.support.errors import DataError

Count = Annotated[int, Field(gt=0)]


class Crop(Document):
    """What of each volume is shown.

    Attributes:
        size: voxels of a crop, one number for every axis or one for each.
        per_volume: crops of a volume that an epoch shows, each at a place of its own.
        smaller: what becomes of a volume that is shorter than a crop along an axis: ``refuse`` it, or ``pad`` it there
            on both sides with the smallest value of the dataset.
        foreground: share of the crops that lie about a voxel of the foreground; the others lie anywhere.
    """

    size: Sides
    per_volume: Count = 1
    smaller: Literal["refuse", "pad"] = "refuse"
    foreground: Annotated[float, Field(ge=0, le=1)] = 0.0

    @model_serializer(mode="wrap")
    def _as_before(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without a share of none: runs from before there was one go on."""
        found: dict[str, Any] = plain(self)
        return found if self.foreground else {name: value for name, value in found.items() if name != "foreground"}

    @field_validator("size")
    @classmethod
    def _is_of_an_image(cls, size: tuple[int, ...]) -> tuple[int, ...]:
        if len(size) > 3:
            raise ValueError(f"{len(size)} numbers; expected one, or one for each of the axes D,H,W")
        return size

    def along(self, axes: int, name: str) -> tuple[int, ...]:
        """Voxels along each of so many axes.

        Args:
            axes: of the images.
            name: of their dataset, for messages.

        Raises:
            DataError: it has another number of them.
        """
        size = self.size * axes if len(self.size) == 1 else self.size
        if len(size) != axes:
            raise DataError(f"{name}: a crop of {_words(size)}, its images have {axes} axes")
        return size


class CroppedDataset(ShardedDataset):
    """The crops of one split, numbered from 0: those of a volume follow one another, ``per_volume`` of them.

    Where a crop lies is a function of seed, dataset, epoch and its number, uniform over the places at which it is
    inside the volume. Images of one study lie on each other, so their crops are cut alike where every study has all
    of them. Volumes may differ in size, not in dtype or channels. A crop is read by the bands of lines that it
    meets (:mod:`data_shards.format.bands`) where its volume is stored raw; memory holds the crops and the bands of one
    plane.

    With ``crop.foreground`` that share of the crops lies about a foreground voxel, moved into the volume where it would
    reach beyond it, as nnU-Net places a third of its patches by labels (Isensee et al., Nature Methods 2021). Here the
    voxel is one of a few planes of the same image (:mod:`data_shards.reading.foreground`), which are read besides; so
    the images of a study are no longer cut alike, and a volume in whose planes none is found is cut anywhere.

    Args:
        where: see :class:`~data_shards.reading.reader.ShardedDataset`.
        split: there too.
        crop: what of each volume is shown.
        seed: of the places.
        image: as there.
        cache: there too.
        whole: fetch remote shards as a whole and keep them in the cache, as those of whole images are. Otherwise only
            what crops need is fetched, each time anew, but for shards that are in the cache already.
        rule: how values are read, whose foreground counts; that of the manifest when left out.

    Raises:
        DataError: see there; or a volume is smaller than a crop, and volumes that differ in dtype, channels or axes.
            Where volumes differ in size and their shards are remote, this is found when such a volume is read.
    """

    def __init__(
        self,
        where: str | Path,
        split: str,
        crop: Crop,
        *,
        seed: int,
        image: str | None = None,
        cache: Cache | None = None,
        whole: bool = False,
        rule: Rule | None = None,
    ) -> None:
        super().__init__(where, split, image=image, cache=cache)
        self.crop, self.seed, self._whole, self._rule = crop, seed, whole, rule
        self._foreground = foreground_of(rule or self.intensity)
        if self.layout.dtype is None:
            raise DataError(
                f"{self.folder}: volumes of several dtypes cannot be cropped into batches of one; `stored`, such as "
                "stored=int16, of `medformer shards build` writes all in one dtype"
            )
        self._channels, self._size = 0, tuple[int, ...]()
        for name, shape in self._shapes():
            if not self._channels:
                self._channels, self._size = shape[0], crop.along(len(shape) - 1, self.folder)
            self._check(shape, f"{self.folder}: {name}")

    def __len__(self) -> int:
        return self.layout.images * self.crop.per_volume

    def __reduce__(self) -> tuple[object, ...]:
        """Another process opens the files itself."""
        opened = (self._where, self.split, self.crop, self.seed, self.image, self._cache, self._whole)
        return _reopened, (*opened, self._rule, self.manifest_digest)

    @property
    def in_parts(self) -> bool:
        """Whether remote shards are not fetched as a whole."""
        return not self._whole

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of every crop."""
        return (self._channels, *self._size)

    @property
    def form(self) -> str:
        """What of each volume is shown."""
        above = f"/{self._foreground}" if self.crop.foreground else ""
        return f"/{self.crop.model_dump_json()}{above}"

    def read(self, indices: np.ndarray, epoch: int = 0) -> Records:
        """The crops with these numbers, in that order.

        Args:
            indices: int64, shape (B,).
            epoch: of the dataset; each has places of its own.

        Raises:
            IndexError: there is no such crop.
            DataError: a shard or index is damaged, or a volume cannot be cropped; shard and sample are named.
        """
        asked, positions = np.asarray(indices, np.int64), self._positions(indices)
        found = self._buffers.empty((len(positions), *self.image_shape), np.dtype(self.layout.dtype))
        columns = Columns(self._shards, positions)
        for number, rows in self._by_shard(positions):
            shard, own = columns.take(number, rows)
            slots = own["images"][self.image]
            corner_BA = self._corners(slots, asked[rows], epoch)
            about_B, share_BK = self._about_foreground(asked[rows], epoch)
            for turn, (place, record, slot) in enumerate(zip(rows.tolist(), own, slots, strict=True)):
                name = self._sample_name(record, int(positions[place]))
                row = int(positions[place]) - self._shards.first_position(number)
                read = BoxReader(shard, slot, self.image, row, name, whole=self._whole)
                self._check(read.shape, f"{shard.name}: {name}")
                first = tuple(corner_BA[turn].tolist())
                if about_B[turn]:
                    first = self._corner_about(read, share_BK[turn]) or first
                self._fill(found[place], read, first)
        records = self._records(found, columns)
        return dataclasses.replace(records, spacing_mm_BA=records.spacing_mm_BA[:, : len(self._size)])

    def prefetch(self, indices: np.ndarray) -> None:
        """Start to bring the shards of these crops near, or of remote ones that are read in parts their indices."""
        if self.remote:
            numbers = np.unique(self._shard_of(self._positions(indices))).tolist()
            self._shards.prefetch(numbers, indices_alone=not self._whole)

    def shard_samples(self) -> tuple[int, ...]:
        """How many crops each shard holds."""
        return tuple(count * self.crop.per_volume for count in super().shard_samples())

    def _studies(self, indices: np.ndarray) -> np.ndarray:
        return super()._studies(indices // self.crop.per_volume)

    def _shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Shapes of the volumes by what they are called; all where they differ and are on this machine, else one."""
        if self.layout.shape is not None:
            yield f"split {self.split}", self.layout.shape
            return
        for number in range(len(self.entry.shards)):
            records = self._shards[number].records
            for row in np.flatnonzero(records["images"][self.image]["bytes"]).tolist():
                name = self._sample_name(records[row], self._shards.first_position(number) + row)
                yield name, _shape(records[row]["images"][self.image])
                if self.remote:
                    return

    def _check(self, shape: tuple[int, ...], name: str) -> None:
        """Raise :class:`DataError` where a volume cannot be cropped."""
        if len(shape) - 1 != len(self._size) or shape[0] != self._channels:
            raise DataError(
                f"{name}: an image of shape {_words(shape)}, others have {self._channels} channels and "
                f"{len(self._size)} axes: crops cannot be one batch"
            )
        shorter = any(length < crop for length, crop in zip(shape[1:], self._size, strict=True))
        if shorter and self.crop.smaller == "refuse":
            raise DataError(
                f"{name}: a crop of {_words(self._size)} is larger than a volume of {_words(shape[1:])} voxels; "
                "make it smaller, or let such volumes be padded (smaller: pad)"
            )

    def _corners(self, slots: np.ndarray, asked_B: np.ndarray, epoch: int) -> np.ndarray:
        """Where crops lie that lie anywhere: their first voxels, int64 (B, A)."""
        whole_BA = slots["shape"][:, 1 : len(self._size) + 1].astype(np.int64)
        return places(("crop", *self._of(epoch)), asked_B, whole_BA - np.minimum(whole_BA, self._size) + 1)

    def _about_foreground(self, asked_B: np.ndarray, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Which crops lie about a foreground voxel, and the random numbers to find one, (B, K)."""
        if not self.crop.foreground:
            return np.zeros(len(asked_B), bool), np.empty((len(asked_B), 0))
        share_BK = shares(("crop foreground", *self._of(epoch)), asked_B, 1 + NUMBERS)
        return share_BK[:, 0] < self.crop.foreground, share_BK[:, 1:]

    def _of(self, epoch: int) -> tuple[int | str, ...]:
        return self.seed, f"{self.card.name}/{self.split}", epoch

    def _corner_about(self, read: BoxReader, share_K: np.ndarray) -> tuple[int, ...] | None:
        """The first voxel of a crop about a voxel of the foreground; None where none was found."""
        whole = read.shape[1:]
        voxel = foreground_voxel(read, whole, self._foreground, share_K)
        if voxel is None:
            return None
        sides = zip(voxel, self._size, whole, strict=True)
        return tuple(min(max(0, at - size // 2), max(0, length - size)) for at, size, length in sides)

    def _fill(self, target: np.ndarray, read: BoxReader, first: tuple[int, ...]) -> None:
        """Read a crop; along axes on which the volume is shorter, all of it, in the middle."""
        size = tuple(min(crop, length) for crop, length in zip(self._size, read.shape[1:], strict=True))
        voxels = read(Box(first, size))
        if size == self._size:
            target[...] = voxels
            return
        target[...] = np.array(self.layout.min).astype(target.dtype)
        before = tuple((crop - length) // 2 for crop, length in zip(self._size, size, strict=True))
        target[Box(before, size).slices] = voxels


def _shape(slot: np.void) -> tuple[int, ...]:
    return tuple(int(size) for size in slot["shape"] if size)


def _words(sizes: tuple[int, ...]) -> str:
    return " x ".join(map(str, sizes))


def _reopened(
    where: str | Path,
    split: str,
    crop: Crop,
    seed: int,
    image: str,
    cache: Cache | None,
    whole: bool,
    rule: Rule | None,
    manifest_digest: str,
) -> CroppedDataset:
    dataset = CroppedDataset(where, split, crop, seed=seed, image=image, cache=cache, whole=whole, rule=rule)
    if dataset.manifest_digest != manifest_digest:
        raise DataError(f"{dataset.folder}: the dataset was changed while it was being read")
    return dataset
