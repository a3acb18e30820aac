"""Our writer against webdataset's TarWriter on the same images and labels."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import webdataset

from benchmarks.data import RandomImages, random_file
from benchmarks.table import Table
from data_shards.writing.writer import write_dataset

SAMPLES = 200_000
REPEATS = 3


def run() -> Table:
    """Samples per second of each: medians over repeats that alternate."""
    with tempfile.TemporaryDirectory() as folder:
        images = random_file(Path(folder) / "images.npy", (SAMPLES, 3, 28, 28))
        writers: dict[str, Callable[[Path], object]] = {
            "medformer, 1 process": lambda out: write_dataset(RandomImages(images), out),
            "medformer, 2 processes": lambda out: write_dataset(RandomImages(images), out, workers=2),
            f"webdataset {version('webdataset')} TarWriter": lambda out: _stock(images, out),
        }
        rates: dict[str, list[float]] = {name: [] for name in writers}
        for turn in range(REPEATS):
            for place, (name, write) in enumerate(writers.items()):
                os.sync()  # else who flushes pays for what the one before has left in memory
                started_s = time.perf_counter()
                write(Path(folder) / f"{turn}-{place}")
                rates[name].append(SAMPLES / (time.perf_counter() - started_s))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    *_, stock = medians.values()
    return Table(
        title="Writing 28x28x3 images with labels",
        command="python -m benchmarks writing",
        columns=("writer", f"samples/s, median of {REPEATS}", "ratio"),
        rows=tuple((name, f"{rate:,.0f}", f"{rate / stock:.2f}") for name, rate in medians.items()),
        remarks=f"{SAMPLES:,} images as npy and json members. Ours also computes CRC, SHA-256, intensity statistics "
        "and digests against duplicates, writes the index and flushes to the disk; start of the processes included.",
    )


def _stock(images: Path, out: Path) -> None:
    pixels = np.load(images, mmap_mode="r")
    out.mkdir()
    with webdataset.ShardWriter(str(out / "%06d.tar"), maxcount=len(pixels), maxsize=1 << 26, verbose=0) as writer:
        for position, image in enumerate(pixels):
            label = {"label": [position % 2], "organ": "unknown", "subject": f"{position:016x}"}
            writer.write({"__key__": f"{position:06d}", "npy": np.asarray(image), "json": label})
