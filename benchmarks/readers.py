"""Our indexed reader against stock webdataset and MosaicML Streaming on the same images, labels included."""

from __future__ import annotations

import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import webdataset

from benchmarks.data import RandomImages, random_file
from benchmarks.table import Table
from data_shards.reading.reader import ShardedDataset
from data_shards.stream.sample_stream import SampleStream
from data_shards.writing.writer import write_dataset

SAMPLES = 20_000
BATCH = 256
REPEATS = 5
PEERS = "MEDFORMER_PEERS_PYTHON"
_STREAMING = Path(__file__).with_name("peers") / "mosaicml_streaming.py"


def run() -> Table:
    """Samples per second of each reader: median over repeats that alternate, so that drift hits all alike."""
    with tempfile.TemporaryDirectory() as folder:
        images = random_file(Path(folder) / "images.npy", (SAMPLES, 3, 28, 28))
        shards = Path(folder) / "random"
        write_dataset(RandomImages(images), shards)
        readers: dict[str, Callable[[], float]] = {
            "medformer stream, shuffled, exact": lambda: _timed(_ours, shards),
            f"webdataset {version('webdataset')}, shuffle buffer 1000": lambda: _timed(_stock, shards),
        }
        if python := os.environ.get(PEERS):
            mds = Path(folder) / "mds"
            _peer(python, "write", mds, images)
            name = f"MosaicML Streaming {_peer_version(python)}, shuffled"
            readers[name] = lambda: float(_peer(python, "read", mds, BATCH))
        else:
            print(f"benchmarks: {PEERS} is not set: MosaicML Streaming is left out", file=sys.stderr)
        rates: dict[str, list[float]] = {name: [] for name in readers}
        for _ in range(REPEATS):
            for name, read in readers.items():
                rates[name].append(read())
    ours, *_ = (statistics.median(values) for values in rates.values())
    rows = tuple(
        (name, f"{statistics.median(v):,.0f}", f"{ours / statistics.median(v):.1f}") for name, v in rates.items()
    )
    return Table(
        title="Reading 28x28x3 images with labels, one reader",
        command=f"{PEERS}=PYTHON python -m benchmarks readers",
        columns=("reader", "samples/s, median of 5", "medformer is faster by"),
        rows=rows,
        remarks=f"{SAMPLES:,} images, batches of {BATCH} as tensors, no worker processes, warm page cache; ours "
        "checks a CRC of every image and keeps an exact global order, webdataset decodes npy and json members, "
        "MosaicML Streaming reads its own format through torch's DataLoader, by the interpreter of an environment "
        "with benchmarks/peers/requirements.txt.",
    )


def _timed(read: Callable[[Path], int], folder: Path) -> float:
    started_s = time.perf_counter()
    count = read(folder)
    return count / (time.perf_counter() - started_s)


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


def _peer(python: str, *arguments: object) -> str:
    command = [python, str(_STREAMING), *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _peer_version(python: str) -> str:
    command = [python, "-c", "from importlib.metadata import version; print(version('mosaicml-streaming'))"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
