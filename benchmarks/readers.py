"""Our indexed reader against stock webdataset on the same shards, labels included."""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import webdataset

from benchmarks.table import Table
from data_shards.reader import ShardedDataset
from data_shards.sample import Image, Sample
from data_shards.sources.base import DatasetCard
from data_shards.stream import SampleStream
from data_shards.vocabulary import Modality, Organ, Task
from data_shards.writer import write_dataset

SAMPLES = 20_000
BATCH = 256
REPEATS = 5


class RandomImages:
    """Random 28x28 RGB images with labels: bytes are bytes to a reader."""

    card = DatasetCard(
        name="random",
        title="random bytes",
        organ="unknown",
        modality="unknown",
        dimensionality="planar",
        task="multiclass",
        classes={0: "a", 1: "b"},
        licence="none",
        homepage="none",
        source_version="1",
        source_checksum={},
        split_rule="all train",
    )

    def __iter__(self) -> Iterator[Sample]:
        generator = np.random.default_rng(0)
        for number in range(SAMPLES):
            pixels = generator.integers(0, 256, (3, 28, 28), dtype=np.uint8)
            yield Sample(
                key=f"{number:06d}",
                images={"image": Image(pixels, Modality.unknown)},
                organ=Organ.unknown,
                subject=f"{number:016x}",
                split="train",
                label=np.array([number % 2]),
                task=Task.multiclass,
            )


def run() -> Table:
    """Samples per second of each reader: median over repeats that alternate, so that drift hits all alike."""
    with tempfile.TemporaryDirectory() as folder:
        shards = Path(folder) / "random"
        write_dataset(RandomImages(), shards)
        readers: dict[str, Callable[[Path], int]] = {
            "medformer stream, shuffled, exact": _ours,
            f"webdataset {version('webdataset')}, shuffle buffer 1000": _stock,
        }
        rates: dict[str, list[float]] = {name: [] for name in readers}
        for _ in range(REPEATS):
            for name, read in readers.items():
                started_s = time.perf_counter()
                count = read(shards)
                rates[name].append(count / (time.perf_counter() - started_s))
    *_, stock = (statistics.median(values) for values in rates.values())
    rows = tuple(
        (name, f"{statistics.median(v):,.0f}", f"{statistics.median(v) / stock:.1f}") for name, v in rates.items()
    )
    return Table(
        title="Reading 28x28x3 images with labels, one reader",
        command="python -m benchmarks readers",
        columns=("reader", "samples/s, median of 5", "ratio"),
        rows=rows,
        remarks=f"{SAMPLES:,} images, batches of {BATCH} as tensors, no worker processes, warm page cache; ours "
        "checks a CRC of every image and keeps an exact global order, webdataset decodes npy and json members.",
    )


def _ours(folder: Path) -> int:
    dataset = ShardedDataset(folder, "train")
    stream = SampleStream([dataset], batch_size=BATCH, seed=0)
    batches = itertools.islice(iter(stream), stream.batches_per_epoch)
    return sum(len(batch.images) for batch in batches)


def _stock(folder: Path) -> int:
    urls = [str(path) for path in sorted(folder.glob("*.tar"))]
    dataset = (
        webdataset.WebDataset(urls, shardshuffle=False).shuffle(1000).decode().to_tuple("npy", "json").batched(BATCH)
    )
    return sum(len(images) for images, _ in dataset)
