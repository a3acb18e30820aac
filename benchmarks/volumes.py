"""Our stream of 64^3 volumes against the raw sequential read of the same bytes."""

from __future__ import annotations

import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.data import RandomImages, random_file, raw_into_new_memory, raw_into_one_buffer
from benchmarks.table import Table
from data_shards.reading.reader import ShardedDataset
from data_shards.stream.sample_stream import SampleStream
from data_shards.writing.writer import write_dataset

VOLUMES = 1200
SIDE = 64
BATCH = 16
REPEATS = 7
READERS = 2
_BUFFER_BYTES = 1 << 20
_NEW_MEMORY = "raw sequential read, each shard into new memory"
_ONE_BUFFER = "raw sequential read, all into one small buffer"


def run() -> Table:
    """Bytes per second of both, with the page cache warm and cold: medians over repeats that alternate."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("MEDFORMER_BENCHMARK_FOLDER")) as folder:
        shards = Path(folder) / "random"
        source = random_file(Path(folder) / "volumes.npy", (VOLUMES, 1, SIDE, SIDE, SIDE))
        write_dataset(RandomImages(source), shards)
        source.unlink()
        rows = []
        for warm in (True, False):
            medians = {name: statistics.median(values) for name, values in _rates(shards, warm=warm).items()}
            for name, rate in medians.items():
                of_raw = (f"{rate / medians[raw]:.2f}" for raw in (_NEW_MEMORY, _ONE_BUFFER))
                rows.append((name, "warm" if warm else "cold", f"{rate / 1e9:.2f}", *of_raw))
    return Table(
        title=f"Reading {SIDE}x{SIDE}x{SIDE} volumes",
        command="python -m benchmarks volumes",
        columns=(
            "reader",
            "page cache",
            f"GB/s, median of {REPEATS}",
            "of raw, new memory",
            "of raw, one buffer",
        ),
        rows=tuple(rows),
        remarks=f"{VOLUMES} volumes of {SIDE**3:,} bytes, batches of {BATCH} as tensors. Raw: every shard from its "
        "beginning to its end, one thread, nothing checked, nothing shuffled; each whole shard into new memory, or all "
        f"into one buffer of {_BUFFER_BYTES >> 20} MiB that stays in the processor's cache and that nobody could train "
        "from. Ours: shuffled, every volume checked by its CRC. Cold: the pages of the shards were given back to the "
        "system before every read (posix_fadvise); below that the disk may have a cache of its own.",
    )


def _rates(shards: Path, *, warm: bool) -> dict[str, list[float]]:
    readers: dict[str, Callable[[Path], int]] = {
        _NEW_MEMORY: raw_into_new_memory,
        _ONE_BUFFER: lambda folder: raw_into_one_buffer(folder, _BUFFER_BYTES),
        "medformer stream, 1 reader thread": lambda folder: _ours(folder, 1),
        f"medformer stream, {READERS} reader threads": lambda folder: _ours(folder, READERS),
    }
    rates: dict[str, list[float]] = {name: [] for name in readers}
    raw_into_one_buffer(shards, _BUFFER_BYTES)
    for _ in range(REPEATS):
        for name, read in readers.items():
            if not warm:
                _forget(shards)
            started_s = time.perf_counter()
            count = read(shards)
            rates[name].append(count / (time.perf_counter() - started_s))
    return rates


def _ours(folder: Path, readers: int) -> int:
    dataset = ShardedDataset(folder, "train")
    stream = SampleStream([dataset], batch_size=BATCH, seed=0, readers=readers, prefetch=2 * readers)
    batches = itertools.islice(iter(stream), stream.batches_per_epoch)
    return sum(batch.images.nbytes for batch in batches)


def _forget(folder: Path) -> None:
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
