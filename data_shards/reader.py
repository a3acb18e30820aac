"""Reading samples of a sharded dataset by index, with every payload checked."""

from __future__ import annotations

import functools
import mmap
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_shards.index import read_index
from data_shards.manifest import ShardEntry, read_manifest, split_entry
from data_shards.support.errors import DataError
from data_shards.support.files import sha256_of

# Each open shard holds two file descriptors; the usual limit of a process is 1024.
_OPEN_SHARDS = 256


@dataclass(frozen=True)
class Records:
    """``B`` samples as they were read.

    Attributes:
        images: one array ``B,C,H,W`` (or ``B,C,D,H,W``) when all images of the split agree in shape and dtype, else a
            list of ``B`` arrays.
        label_BL: int64 or float64; a row is -1 or NaN where a sample is not labelled, ``L`` is 0 when none is.
        organ_B: vocabulary ids, int64.
        modality_B: vocabulary ids, int64.
        task_B: vocabulary ids, int64.
        spacing_mm_BA: float32, one column per spatial axis, NaN where not known.
        key_B: the keys, as an array of ASCII bytes.
        subject_B: the hashed subjects, as an array of ASCII bytes.
    """

    images: np.ndarray | list[np.ndarray]
    label_BL: np.ndarray
    organ_B: np.ndarray
    modality_B: np.ndarray
    task_B: np.ndarray
    spacing_mm_BA: np.ndarray
    key_B: np.ndarray
    subject_B: np.ndarray

    def __len__(self) -> int:
        return len(self.organ_B)

    @property
    def stacked(self) -> np.ndarray:
        """The images as one array.

        Raises:
            DataError: they differ in shape or dtype.
        """
        if isinstance(self.images, list):
            raise DataError("images of different shapes or dtypes cannot be one array")
        return self.images


class ShardedDataset:
    """One split of a folder of shards; samples are addressed by their position, from 0.

    Opening reads the manifest and compares the sizes of all files with it. An index is verified when it is first
    needed, the pixels of a sample whenever they are read.

    Args:
        folder: what :func:`data_shards.writer.write_dataset` made.
        split: ``train``, ``val`` or ``test``.
        image: which image of the studies is read; may be left out when they have only one.

    Raises:
        DataError: the folder, split or image is not there, or a file is missing or of the wrong size.
    """

    def __init__(self, folder: Path, split: str, *, image: str | None = None) -> None:
        self.folder = Path(folder)
        self.split = split
        self.manifest = read_manifest(self.folder)
        self.card = self.manifest.card
        self.entry = split_entry(self.manifest, split, self.folder)
        self.image = image if image is not None else self._only_image()
        if self.image not in self.entry.images:
            raise DataError(f"{self.folder}: split {split} has no image {self.image!r}; it has {self._image_names()}")
        self.layout = self.entry.images[self.image]
        for shard in self.entry.shards:
            check_size(self.folder / shard.file, shard.bytes)
            check_size(self.folder / shard.index, shard.index_bytes)
        self._ends = np.cumsum([shard.samples for shard in self.entry.shards])
        self._shard = functools.lru_cache(_OPEN_SHARDS)(self._open)

    def __len__(self) -> int:
        return self.entry.samples

    def __reduce__(self) -> tuple[object, ...]:
        """Another process opens the files itself."""
        return functools.partial(ShardedDataset, image=self.image), (self.folder, self.split)

    @property
    def manifest_digest(self) -> str:
        """SHA-256 that identifies the content of the whole folder."""
        return self.manifest.digest

    @property
    def image_shape(self) -> tuple[int, ...] | None:
        """Shape of every image, or None when they differ (or differ in dtype)."""
        return self.layout.shape if self.layout.dtype is not None else None

    def read(self, indices: np.ndarray) -> Records:
        """The samples at ``indices``, in that order.

        Args:
            indices: positions, int64, shape (B,).

        Raises:
            IndexError: a position is outside the split.
            DataError: a shard or index is damaged; the message names the shard and the sample.
        """
        records_B, shard_B = self._records(indices)
        slots_B = records_B["images"][self.image]
        absent = np.flatnonzero(slots_B["bytes"] == 0)
        if absent.size:
            raise DataError(f"{self.folder}: sample {_text(records_B['key'][absent[0]])} has no image {self.image!r}")
        images: np.ndarray | list[np.ndarray]
        if self.image_shape is not None:
            images = self._gather(slots_B, shard_B)
        else:
            images = [self._one(slot, int(shard)) for slot, shard in zip(slots_B, shard_B, strict=True)]
        self._check_payloads(images, records_B, shard_B)
        return self._with_images(images, records_B)

    def describe(self, indices: np.ndarray) -> Records:
        """As :meth:`read`, without the images: only the indices of the shards are touched, ``images`` is empty."""
        return self._with_images([], self._records(indices)[0])

    def _with_images(self, images: np.ndarray | list[np.ndarray], records_B: np.ndarray) -> Records:
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
        )

    def _records(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Index records and shard numbers of the samples at ``indices``."""
        positions = np.asarray(indices, dtype=np.int64)
        if positions.size and not (positions.min() >= 0 and positions.max() < len(self)):
            raise IndexError(f"{self.card.name} {self.split} has {len(self)} samples; asked for {positions}")
        shard_B = np.searchsorted(self._ends, positions, side="right")
        records_B = np.empty(len(positions), self._shard(0).records.dtype)
        for number in np.unique(shard_B):
            shard = self._shard(int(number))
            rows = np.flatnonzero(shard_B == number)
            records_B[rows] = shard.records[positions[rows] - (self._ends[number] - len(shard.records))]
        return records_B, shard_B

    def _gather(self, slots_B: np.ndarray, shard_B: np.ndarray) -> np.ndarray:
        """Payloads of one size into one array: a fancy index on the overlapping windows of the mapped file."""
        dtype = np.dtype(self.layout.dtype)
        shape = self.layout.shape or ()
        images = np.empty((len(slots_B), *shape), dtype)
        size = int(np.prod(shape)) * dtype.itemsize
        flat = images.reshape(len(slots_B), -1).view(np.uint8) if len(slots_B) else images
        for number in np.unique(shard_B):
            content = self._shard(int(number)).content
            windows = np.lib.stride_tricks.as_strided(content, (len(content) - size + 1, size), (1, 1), writeable=False)
            rows = shard_B == number
            flat[rows] = windows[slots_B["offset"][rows]]
        return images

    def _one(self, slot: np.void, number: int) -> np.ndarray:
        shape = slot["shape"][slot["shape"] > 0]
        content = self._shard(number).content
        payload = content[int(slot["offset"]) : int(slot["offset"]) + int(slot["bytes"])]
        return payload.copy().view(np.dtype(_text(slot["dtype"]))).reshape(shape)

    def _check_payloads(
        self, images: np.ndarray | list[np.ndarray], records_B: np.ndarray, shard_B: np.ndarray
    ) -> None:
        if isinstance(images, np.ndarray):
            if not len(images):
                return
            content = images.data.cast("B")
            size = len(content) // len(images)
            found = [zlib.crc32(content[start : start + size]) for start in range(0, len(content), size)]
        else:
            found = [zlib.crc32(image.data) for image in images]
        wrong = np.flatnonzero(records_B["images"][self.image]["crc32"] != np.array(found, np.uint32))
        if wrong.size:
            first = wrong[0]
            path = self.folder / self.entry.shards[int(shard_B[first])].file
            raise DataError(f"{path}: damaged: the pixels of sample {_text(records_B['key'][first])} fail their CRC-32")

    def _open(self, number: int) -> _OpenShard:
        return _OpenShard(self.folder, self.entry.shards[number])

    def _only_image(self) -> str:
        names = sorted(self.entry.images)
        if len(names) != 1:
            raise DataError(f"{self.folder}: the studies have several images, say which: {self._image_names()}")
        return names[0]

    def _image_names(self) -> str:
        return ", ".join(sorted(self.entry.images))


class _OpenShard:
    """The mapped bytes of a shard and the verified records of its index."""

    def __init__(self, folder: Path, entry: ShardEntry) -> None:
        self.records = verified_index(folder, entry)
        path = folder / entry.file
        try:
            with open(path, "rb") as file:
                self.content = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: cannot be read: {error}") from None


def verified_index(folder: Path, entry: ShardEntry) -> np.ndarray:
    """The records of a shard, memory-mapped.

    Raises:
        DataError: the index is missing or is not the one that the manifest lists.
    """
    path = folder / entry.index
    try:
        found = sha256_of(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    if found != entry.index_sha256:
        raise DataError(f"{path}: damaged: its SHA-256 is not the one in the manifest")
    return np.asarray(read_index(path, entry.samples))


def load_split(folder: Path, split: str) -> Records:
    """Every sample of a split, in index order."""
    dataset = ShardedDataset(folder, split)
    return dataset.read(np.arange(len(dataset)))


def check_size(path: Path, size: int) -> None:
    """Compare the size of a file with the manifest's.

    Raises:
        DataError: the file is missing or of another size.
    """
    try:
        found = path.stat().st_size
    except OSError:
        raise DataError(f"{path}: missing; the manifest lists it") from None
    if found != size:
        raise DataError(f"{path}: {found} bytes, the manifest says {size}: truncated or damaged")


def _text(value: bytes) -> str:
    return bytes(value).decode("ascii", "replace")
