"""Reading samples of a sharded dataset by index, with every payload checked."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from data_shards.format.manifest import FILE_NAME, Manifest, parse_manifest, read_manifest, split_entry
from data_shards.intensity import Rule, rule_of
from data_shards.reading.buffers import Buffers
from data_shards.reading.members import Members, members_of
from data_shards.reading.open_shard import OpenShard
from data_shards.reading.pixels import SMALL_BYTES, read_one, read_rows
from data_shards.reading.pool import ShardPool
from data_shards.reading.records import Records
from data_shards.reading.select import Select
from data_shards.sample import MASK
from data_shards.storage import Cache, Storage, open_storage
from data_shards.storage.local import LocalFolder
from data_shards.support.errors import DataError
from data_shards.vocabulary import Dimensionality

# A manifest lists some 400 bytes per shard: room for more than two million shards.
_MANIFEST_BYTES = 1 << 30


class ShardedDataset:
    """One split of a folder of shards; samples are addressed by their position, from 0.

    Opening reads the manifest; for a folder of this machine the sizes of all files are compared with it. An index is
    verified when it is first needed, the pixels of a sample whenever they are read. Memory is in proportion to the
    number of shards, not of samples; only where some studies lack the image, one bit per study is added. Threads may
    share a dataset; pickled, it is opened anew.

    Args:
        where: what :func:`data_shards.writing.writer.write_dataset` made: a folder, or the URL of one.
        split: ``train``, ``val`` or ``test``.
        image: which image of the studies is read; may be left out when they have only one beside the mask. The
            dataset consists of the studies that have it.
        cache: where copies of remote shards are kept; not needed for a folder of this machine.

    Raises:
        DataError: the folder, split or image is not there, or a file is missing or of the wrong size.
    """

    def __init__(self, where: str | Path, split: str, *, image: str | None = None, cache: Cache | None = None) -> None:
        storage = open_storage(where, cache=cache)
        self.folder = storage.describe()
        self.split = split
        self.manifest = _manifest(storage)
        self.card = self.manifest.card
        self.entry = split_entry(self.manifest, split, self.folder)
        self.image = image if image is not None else self._only_image()
        if self.image not in self.entry.images:
            raise DataError(f"{self.folder}: split {split} has no image {self.image!r}; it has {self._image_names()}")
        self.layout = self.entry.images[self.image]
        if sum(shard.samples for shard in self.entry.shards) != self.entry.samples:
            raise DataError(f"{self.folder}: the shards of split {split} do not add up to {self.entry.samples} samples")
        local = isinstance(storage, LocalFolder)
        if local:
            for shard in self.entry.shards:
                storage.local(shard.file, size=shard.bytes, sha256=shard.sha256).release()
                storage.local(shard.index, size=shard.index_bytes, sha256=shard.index_sha256).release()
        self._where, self._cache = where, cache
        self._shards = ShardPool(storage, self.entry.shards, None if local else cache)
        self._buffers = Buffers()
        self._select: Select | None = None
        self._select_lock = threading.Lock()

    def __len__(self) -> int:
        return self.layout.images

    def __reduce__(self) -> tuple[object, ...]:
        """Another process opens the files itself."""
        return _reopened, (self._where, self.split, self.image, self._cache, self.manifest_digest)

    @property
    def manifest_digest(self) -> str:
        """SHA-256 that identifies the content of the whole folder."""
        return self.manifest.digest

    @property
    def image_shape(self) -> tuple[int, ...] | None:
        """Shape of every image, or None when they differ (or differ in dtype)."""
        return self.layout.shape if self.layout.dtype is not None else None

    @property
    def volumetric(self) -> bool:
        """Whether images have a depth; where they differ in shape, whether any of the folder has."""
        if self.layout.shape is None:
            return Dimensionality.volumetric.name in self.manifest.vocabulary["dimensionality"]
        return len(self.layout.shape) == 4

    @property
    def in_parts(self) -> bool:
        """Whether remote shards are not fetched as a whole."""
        return False

    @property
    def form(self) -> str:
        """What of each image is shown, in words that differ where it differs; nothing for the whole of it."""
        return ""

    @property
    def image_bytes(self) -> int:
        """Bytes of the pixels of every image, 0 when they differ."""
        return math.prod(self.image_shape) * np.dtype(self.layout.dtype).itemsize if self.image_shape else 0

    @property
    def intensity(self) -> Rule | None:
        """How values become the range of the network, as the manifest says it; None where it says nothing."""
        return rule_of(self.manifest.intensity, self.image)

    @property
    def shard_bytes(self) -> int:
        """Bytes of all shards and their indices."""
        return sum(shard.bytes + shard.index_bytes for shard in self.entry.shards)

    @property
    def attributes(self) -> tuple[str, ...]:
        """Names of the attributes."""
        return self.manifest.attributes

    @property
    def remote(self) -> bool:
        """Whether the shards come over a network."""
        return not isinstance(self._shards.storage, LocalFolder)

    def read(self, indices: np.ndarray, epoch: int = 0) -> Records:
        """The samples at ``indices``, in that order.

        Args:
            indices: positions, int64, shape (B,).
            epoch: of the dataset, where what is shown of a sample depends on it; of whole images it does not.

        Raises:
            IndexError: a position is outside the split.
            DataError: a shard or index is damaged; the message names the shard and the sample.
        """
        positions = self._positions(indices)
        shape = self.image_shape
        stacked = None if shape is None else self._buffers.empty((len(positions), *shape), np.dtype(self.layout.dtype))
        listed: list[np.ndarray] = [] if shape is not None else [np.empty(0)] * len(positions)
        columns = Columns(self._shards, positions)
        for number, places in self._by_shard(positions):
            shard, own = columns.take(number, places)
            slots = own["images"][self.image]

            def name(row: int, own: np.ndarray = own, places: np.ndarray = places) -> str:
                return self._sample_name(own[row], int(positions[places[row]]))

            absent = np.flatnonzero(slots["bytes"] == 0)
            if absent.size:
                raise DataError(f"{shard.name}: {name(int(absent[0]))} has no image {self.image!r}")
            if stacked is not None:
                read_rows(shard, slots, stacked, places, name)
            else:
                for row, place in enumerate(places):
                    listed[place] = read_one(shard, slots[row], name, row)
        return self._records(listed if stacked is None else stacked, columns)

    def describe(self, indices: np.ndarray) -> Records:
        """As :meth:`read`, without the images: only the indices of the shards are touched, ``images`` is empty."""
        positions = self._positions(indices)
        columns = Columns(self._shards, positions)
        for number, places in self._by_shard(positions):
            columns.take(number, places)
        return self._records([], columns)

    def members(self, indices: np.ndarray) -> Iterator[Members]:
        """The files of the samples at ``indices`` one by one, as they stand in the shards: all images, and the rest.

        Raises:
            IndexError: a position is outside the split.
            DataError: a shard or index is damaged.
        """
        positions = self._positions(indices)
        for position, number in zip(positions.tolist(), self._shard_of(positions).tolist(), strict=True):
            row = position - self._shards.first_position(number)
            yield members_of(self._shards[number], row, self.split, self.attributes, adopted=self.manifest.adopted)

    def prefetch(self, indices: np.ndarray) -> None:
        """Start to bring these samples near: remote shards to this node, large local images into memory.

        Returns at once. Small local images are left to the system, which reads ahead by itself.
        """
        positions = self._positions(indices)
        if self.remote:
            self._shards.prefetch(np.unique(self._shard_of(positions)).tolist())
        elif self.image_bytes > SMALL_BYTES:
            for number, places in self._by_shard(positions):
                shard = self._shards[number]
                slots = shard.records["images"][self.image]
                own = slots[positions[places] - self._shards.first_position(number)]
                shard.will_need(own["offset"], int(own["bytes"].max()))

    def shard_samples(self) -> tuple[int, ...]:
        """How many samples each shard holds; their positions follow one another in this order."""
        if self.layout.images == self.entry.samples:
            return tuple(shard.samples for shard in self.entry.shards)
        select = self._having_image()
        before = [select.before(self._shards.first_position(number)) for number in range(len(self.entry.shards))]
        return tuple(np.diff([*before, self.layout.images]).tolist())

    def _records(self, images: np.ndarray | list[np.ndarray], columns: Columns) -> Records:
        records_B = columns.joined()
        slots_B = records_B["images"][self.image]
        axes = len(self.layout.shape) - 1 if self.layout.shape is not None else slots_B["spacing_mm"].shape[1]
        return Records(
            images=images,
            label_BL=records_B["label"].copy(),
            organ_B=records_B["organ"].astype(np.int64),
            modality_B=slots_B["modality"].astype(np.int64),
            task_B=records_B["task"].astype(np.int64),
            spacing_mm_BA=slots_B["spacing_mm"][:, :axes].astype(np.float32),
            key_B=records_B["key"],
            subject_B=records_B["subject"],
            attributes={name: records_B["attributes"][:, place].copy() for place, name in enumerate(self.attributes)},
        )

    def _positions(self, indices: np.ndarray) -> np.ndarray:
        """Positions in the split of the samples at ``indices``."""
        asked = np.asarray(indices, dtype=np.int64)
        if asked.size and not (asked.min() >= 0 and asked.max() < len(self)):
            raise IndexError(f"{self.card.name} {self.split} has {len(self)} samples; asked for {asked}")
        return self._studies(asked)

    def _studies(self, indices: np.ndarray) -> np.ndarray:
        """Positions in the split of the studies with such numbers among those that have the image."""
        return indices if self.layout.images == self.entry.samples else self._having_image()(indices)

    def _having_image(self) -> Select:
        with self._select_lock:
            if self._select is None:
                select = Select(self._marks())
                if len(select) != self.layout.images:
                    raise DataError(
                        f"{self.folder}: {len(select)} studies of split {self.split} have image {self.image!r}, "
                        f"the manifest says {self.layout.images}"
                    )
                self._select = select
            return self._select

    def _marks(self) -> Iterator[np.ndarray]:
        for number in range(len(self.entry.shards)):
            yield self._shards[number].records["images"][self.image]["bytes"] > 0

    def _shard_of(self, positions: np.ndarray) -> np.ndarray:
        return np.searchsorted(self._shards.ends, positions, side="right")

    def _by_shard(self, positions: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """The shards of the samples at ``positions``, each with the places in ``positions`` of its own."""
        shard_B = self._shard_of(positions)
        order = np.argsort(shard_B, kind="stable")
        starts = np.flatnonzero(np.diff(shard_B[order], prepend=-1))
        for first, last in itertools.pairwise([*starts.tolist(), len(order)]):
            yield int(shard_B[order[first]]), order[first:last]

    def _sample_name(self, record: np.void, position: int) -> str:
        # Keys of our own shards identify nobody; of those of others nothing is known.
        if self.manifest.adopted:
            return f"sample number {position}"
        return f"sample {bytes(record['key']).decode('ascii', 'replace')}"

    def _only_image(self) -> str:
        names = [name for name in sorted(self.entry.images) if name != MASK]
        if len(names) != 1:
            raise DataError(f"{self.folder}: the studies have several images, say which: {self._image_names()}")
        return names[0]

    def _image_names(self) -> str:
        return ", ".join(sorted(self.entry.images))


class Columns:
    """The index records of a batch, gathered shard by shard.

    They are copied as plain bytes: numpy copies a structured dtype field by field, ten times slower.
    """

    def __init__(self, shards: ShardPool, positions: np.ndarray) -> None:
        self._shards = shards
        self._positions = positions
        self._dtype: np.dtype | None = None
        self._bytes_B = np.empty(0, "V1")

    def take(self, number: int, places: np.ndarray) -> tuple[OpenShard, np.ndarray]:
        """Copy those of one shard to their places; returns the shard and the copies."""
        shard = self._shards[number]
        records = shard.records
        plain = f"V{records.itemsize}"
        if self._dtype is None:
            self._dtype, self._bytes_B = records.dtype, np.empty(len(self._positions), plain)
        if records.dtype != self._dtype:
            raise DataError(f"{shard.name}: its index has other columns than those of the other shards")
        own = records.view(plain)[self._positions[places] - self._shards.first_position(number)]
        self._bytes_B[places] = own
        return shard, own.view(records.dtype)

    def joined(self) -> np.ndarray:
        """All of them; a rank without a row in a batch still gets columns of the right kind."""
        if self._dtype is None:
            return np.empty(0, self._shards[0].records.dtype)
        return self._bytes_B.view(self._dtype)


def _manifest(storage: Storage) -> Manifest:
    if isinstance(storage, LocalFolder):
        return read_manifest(storage.folder)
    return parse_manifest(storage.read_bytes(FILE_NAME, _MANIFEST_BYTES), storage.describe(FILE_NAME))


def _reopened(where: str | Path, split: str, image: str, cache: Cache | None, manifest_digest: str) -> ShardedDataset:
    dataset = ShardedDataset(where, split, image=image, cache=cache)
    if dataset.manifest_digest != manifest_digest:
        raise DataError(f"{dataset.folder}: the dataset was changed while it was being read")
    return dataset
