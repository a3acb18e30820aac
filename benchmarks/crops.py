"""A crop of a large CT out of its shard, against reading the volume for it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.data import unlabelled_card
from benchmarks.interleaved import interleaved
from benchmarks.table import Table
from data_shards.reading.cropped import Crop, CroppedDataset
from data_shards.reading.reader import ShardedDataset
from data_shards.sample import Image, Sample
from data_shards.sources.base import Source
from data_shards.vocabulary import Organ
from data_shards.writing.writer import write_dataset

SHAPE = (1, 300, 512, 512)
CROP = 96
PAIRS = 20


def run() -> Table:
    """Time and bytes of a crop by three ways of reading."""
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home) / "ct"
        write_dataset(_OneVolume(), folder)
        np.save(Path(home) / "ct.npy", _volume())
        crops = CroppedDataset(folder, "train", Crop(size=CROP, per_volume=1000), seed=0)
        whole = ShardedDataset(folder, "train")
        mapped = np.load(Path(home) / "ct.npy", mmap_mode="r")

        def corner() -> tuple[slice, ...]:
            first = [int(random.integers(0, length - CROP + 1)) for length in SHAPE[1:]]
            return (slice(None), *(slice(start, start + CROP) for start in first))

        def of_shard() -> np.ndarray:
            return crops.read(random.integers(0, 1000, 1)).stacked[0]

        def of_volume() -> np.ndarray:
            return np.ascontiguousarray(whole.read(np.zeros(1, np.int64)).stacked[0][corner()])

        def of_map() -> np.ndarray:
            return np.ascontiguousarray(mapped[corner()])

        ways: list[tuple[str, Callable[[], np.ndarray]]] = [
            ("the volume read and checked, then cut", of_volume),
            ("a slice of numpy's memory map, unchecked", of_map),
        ]
        rows = []
        for name, other in ways:
            pairs = interleaved(of_shard, other, pairs=PAIRS)
            rows.append((name, f"{1000 * pairs.first_s:.1f}", f"{1000 * pairs.second_s:.1f}", pairs.text))
        before = _bytes_read()
        for _ in range(50):
            of_shard()
        share = (_bytes_read() - before) / 50 / (np.prod(SHAPE) * 2)
    return Table(
        title=f"A crop of {CROP}^3 out of a CT of 512 x 512 x 300 at 16 bits",
        command="python -m benchmarks crops",
        columns=("against", "crop of the shard, ms", "the other, ms", "ratio"),
        rows=tuple(rows),
        remarks=f"Processor time, the file in memory, medians of {PAIRS} pairs, 95 % intervals of the ratio. A crop "
        f"asks the system for {100 * share:.1f} % of the bytes of the volume, checksums compared; its voxels are "
        f"{100 * CROP**3 / np.prod(SHAPE):.1f} %.",
    )


def _volume() -> np.ndarray:
    return np.random.default_rng(0).integers(-1024, 3072, SHAPE, np.int16)


def _bytes_read() -> int:
    return int(Path("/proc/self/io").read_text().split("rchar: ")[1].split()[0])


class _OneVolume(Source):
    """One CT of noise."""

    card = unlabelled_card("ct", "Noise", modality="ct", dimensionality="volumetric")

    def __len__(self) -> int:
        return 1

    def sample(self, position: int) -> Sample:
        """The volume."""
        return Sample("ct", {"image": Image(_volume())}, Organ.unknown, "subject", "train")
