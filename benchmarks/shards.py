"""What a shard costs in a build of many: the last ones against the first ones."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.data import unlabelled_card
from benchmarks.table import Table
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
    """Milliseconds of a shard at the start and at the end of a build."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(REPEATS):
            os.sync()
            clock = _Clock(SHARDS)
            write_dataset(_OneImage(), Path(folder) / str(turn), shard_bytes=1, progress=clock)
            first, last = clock.between(0, COMPARED), clock.between(SHARDS - COMPARED, SHARDS)
            rows.append((first, last))
    # What else runs on the machine only adds time: the least disturbed build of each counts.
    first, last = (tuple(map(min, zip(*build, strict=True))) for build in zip(*rows, strict=True))
    return Table(
        title=f"A shard of a build of {SHARDS:,} shards",
        command="python -m benchmarks shards",
        columns=("", f"first {COMPARED}, ms a shard", f"last {COMPARED}, ms a shard", "last : first"),
        rows=tuple(
            (name, f"{1000 * first[place]:.2f}", f"{1000 * last[place]:.2f}", f"{last[place] / first[place]:.2f}")
            for place, name in enumerate(("time", "of the processor"))
        ),
        remarks=f"The least of {REPEATS} builds of shards of one image of {_SIDE}x{_SIDE} bytes, after every eighth of "
        "which the journal is written; without the first eight, with which everything starts, and the manifest.",
    )


class _OneImage(Source):
    """Random images, each different from the others."""

    card = unlabelled_card("many", "Random images", dimensionality="planar")

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
