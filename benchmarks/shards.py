"""What a shard costs in a build of many: the last ones against the first ones."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.table import Table
from data_shards.card import DatasetCard
from data_shards.sample import Image, Sample
from data_shards.sources.base import Source
from data_shards.support.progress import Progress
from data_shards.vocabulary import Organ
from data_shards.writing.writer import write_dataset

SHARDS = 2000
COMPARED = 100
REPEATS = 3
# Images so large that eight of them are a chunk, after which the journal is written: small shards, often noted.
_SIDE = 500


def run() -> Table:
    """Seconds of 100 shards at the start and at the end of a build; the smallest ratio of some builds."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(REPEATS):
            os.sync()
            clock = _Clock(SHARDS)
            write_dataset(_OneImage(), Path(folder) / str(turn), shard_bytes=1, progress=clock)
            first, last = clock.between(0, COMPARED), clock.between(SHARDS - COMPARED, SHARDS)
            rows.append((first, last))
    table = [
        (f"build {turn}", *map(_ms, first), *map(_ms, last), _ratio(first, last))
        for turn, (first, last) in enumerate(rows, 1)
    ]
    best = min(last[0] / first[0] for first, last in rows)
    return Table(
        title=f"A shard of a build of {SHARDS:,} shards",
        command="python -m benchmarks shards",
        columns=(
            "build",
            f"first {COMPARED}, ms a shard",
            "of it CPU",
            f"last {COMPARED}, ms a shard",
            "of it CPU",
            "last : first",
        ),
        rows=tuple(table),
        remarks=f"Shards of one image of {_SIDE}x{_SIDE} bytes, so the journal is written after every eighth; without "
        f"the first chunk, which starts everything, and without the manifest. Smallest ratio: {best:.2f}.",
    )


class _OneImage(Source):
    """Random images, each different from the others."""

    card = DatasetCard(
        name="many",
        title="Random images",
        organ="unknown",
        modality="unknown",
        dimensionality="planar",
        task="self_supervised",
        classes={},
        licence="CC0",
        homepage="",
        source_version="1",
        source_checksum={},
        split_rule="all train",
    )

    def __init__(self) -> None:
        self._pixels = np.random.default_rng(0).integers(0, 256, (1, _SIDE, _SIDE), np.uint8)

    def __len__(self) -> int:
        return SHARDS

    def sample(self, position: int) -> Sample:
        """The one image with its position written into it."""
        pixels = self._pixels.copy()
        pixels[0, 0, :8] = np.frombuffer(position.to_bytes(8, "little"), np.uint8)
        return Sample(f"{position:06d}", {"image": Image(pixels)}, Organ.unknown, f"s{position:06d}", "train")


class _Clock(Progress):
    """Notes when samples, and so shards, were done."""

    def __init__(self, total: int) -> None:
        super().__init__(total, "shards", "benchmark", silent=True)
        self._times: list[tuple[int, float, float]] = []

    def advance(self, count: int = 1, /, **figures: float) -> None:
        """Note wall and processor time."""
        super().advance(count, **figures)
        self._times.append((self.done, time.perf_counter(), time.process_time()))

    def between(self, first: int, last: int) -> tuple[float, float]:
        """Seconds per shard, of the wall and of the processor, from about shard ``first`` to ``last``."""
        inside = [entry for entry in self._times if first < entry[0] <= last]
        shards = inside[-1][0] - inside[0][0]
        return (inside[-1][1] - inside[0][1]) / shards, (inside[-1][2] - inside[0][2]) / shards


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.2f}"


def _ratio(first: tuple[float, float], last: tuple[float, float]) -> str:
    return f"{last[0] / first[0]:.2f} (CPU {last[1] / first[1]:.2f})"
