"""Sources for the benchmarks of the data layer: random bytes, since bytes are bytes to a reader, and given images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_shards.card import DatasetCard
from data_shards.sample import Image, Sample
from data_shards.sources.base import Source
from data_shards.vocabulary import Modality, Organ, Task


def unlabelled_card(name: str, title: str, **known: str) -> DatasetCard:
    """The card of images that a benchmark makes: without labels, all of them to train on.

    Args:
        name: of the set.
        title: in words.
        known: what is known of them: organ, modality, dimensionality.
    """
    vague = dict.fromkeys(("organ", "modality", "dimensionality"), "unknown")
    return DatasetCard(
        name=name,
        title=title,
        task="self_supervised",
        classes={},
        licence="none",
        homepage="none",
        source_version="1",
        source_checksum={},
        split_rule="all train",
        **(vague | known),
    )


class RandomImages(Source):
    """The images of a ``.npy`` file, labelled by the parity of their position.

    Args:
        path: array ``N,C,H,W`` or ``N,C,D,H,W`` of uint8; :func:`random_file` makes one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pixels: np.ndarray = np.load(path, mmap_mode="r")
        self.card = DatasetCard(
            name="random",
            title="random bytes",
            organ="unknown",
            modality="unknown",
            dimensionality="planar" if self._pixels.ndim == 4 else "volumetric",
            task="multiclass",
            classes={0: "a", 1: "b"},
            licence="none",
            homepage="none",
            source_version="1",
            source_checksum={},
            split_rule="all train",
        )

    def __reduce__(self) -> tuple[object, ...]:
        return RandomImages, (self._path,)

    def __len__(self) -> int:
        return len(self._pixels)

    def sample(self, position: int) -> Sample:
        """Image ``position``."""
        return Sample(
            key=f"{position:06d}",
            images={"image": Image(np.asarray(self._pixels[position]), Modality.unknown)},
            organ=Organ.unknown,
            subject=f"{position:016x}",
            split="train",
            label=np.array([position % 2]),
            task=Task.multiclass,
        )


class Held(Source):
    """Images in memory, each a training sample.

    Args:
        images: ``C,H,W`` or ``C,D,H,W``.
    """

    duplicates = "allow"

    def __init__(self, images: Sequence[np.ndarray]) -> None:
        self._images = images
        self.card = unlabelled_card("held", "images in memory")

    def __len__(self) -> int:
        return len(self._images)

    def sample(self, position: int) -> Sample:
        """Image ``position``."""
        image = Image(self._images[position], Modality.unknown)
        return Sample(f"{position:06d}", {"image": image}, Organ.unknown, f"{position:x}", "train", task=Task.unknown)


def random_file(path: Path, shape: tuple[int, ...]) -> Path:
    """Write an array of random bytes."""
    np.save(path, np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    return path


def raw_into_one_buffer(folder: Path, buffer_bytes: int) -> int:
    """Read every shard of a folder from its beginning to its end into one buffer; how many bytes there are."""
    buffer = bytearray(buffer_bytes)
    count = 0
    for path in sorted(folder.glob("*.tar")):
        with path.open("rb", buffering=0) as file:
            while read := file.readinto(buffer):
                count += read
    return count


def raw_into_new_memory(folder: Path) -> int:
    """Read every shard of a folder at once, as a batch that is kept needs it; how many bytes there are."""
    return sum(len(path.read_bytes()) for path in sorted(folder.glob("*.tar")))
