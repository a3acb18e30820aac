"""16-bit values: our stream against a raw read of the same bytes, and rules against numpy."""

from __future__ import annotations

import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.data import Held, raw_into_new_memory, raw_into_one_buffer
from benchmarks.interleaved import interleaved
from benchmarks.table import Table
from data_shards.intensity import Percentiles, Rule, Window, Windows, ZScore
from data_shards.reading.reader import ShardedDataset
from data_shards.stream.sample_stream import SampleStream
from data_shards.writing.writer import write_dataset
from pretrain.intensity import in_range

REPEATS = 9
PAIRS = 6
BATCH = 8
VOLUMES, SIDE = 32, 128
"""Of the set that is read beside a raw read: 4 MiB each."""
RULES: dict[str, Rule] = {
    "two windows": Windows(windows=(Window.model_validate("lung"), Window.model_validate("mediastinum"))),
    "percentiles": Percentiles(),
    "z-score": ZScore(),
}


def run() -> Table:
    """Rates and sizes, the two programs of each ratio in turn."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("MEDFORMER_BENCHMARK_FOLDER")) as folder:
        rows = [*_reading(Path(folder)), *_rules()]
    return Table(
        title="16-bit values",
        command="python -m benchmarks intensity",
        columns=("what", "MB/s of the processor", "rate of the peer", "peer"),
        rows=tuple(rows),
        remarks=f"Medians of {REPEATS} (rules: {PAIRS}) in turn, page cache warm, one thread, seconds of the "
        f"processor. Reading: {VOLUMES} made CT volumes of {SIDE}^3 int16 in batches of {BATCH}, shuffled, "
        "each checked by its CRC; raw is every shard from its beginning to its end, nothing checked: into "
        "new memory, which a batch needs that is kept, or into one buffer of the size of a batch, as our "
        "reader uses the memory of batches again. Rules: a batch of volumes; the peer is numpy in the same steps "
        "and float64.",
    )


def ct_like(number: int) -> np.ndarray:
    """Air, lung, soft tissue and bone with noise, ``1,D,H,W`` int16."""
    random = np.random.default_rng(number)
    z, y, x = np.ogrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    values = np.full((SIDE,) * 3, -1024.0, np.float32)
    for radius, unit in ((0.9, 40.0), (0.6, -850.0), (0.2, 700.0)):
        values[(z**2 + y**2 + x**2 < radius**2)] = unit
    inside = values > -1024
    values[inside] += random.normal(0, 25, int(inside.sum())).astype(np.float32)
    return values.round().astype(np.int16)[None]


def _reading(folder: Path) -> list[tuple[str, ...]]:
    shards = folder / "ct"
    write_dataset(Held([ct_like(number) for number in range(VOLUMES)]), shards)
    readers: dict[str, Callable[[Path], int]] = {
        "raw read, each shard into new memory": raw_into_new_memory,
        "raw read, into one buffer of a batch": partial(raw_into_one_buffer, buffer_bytes=BATCH * 2 * SIDE**3),
        "stream": _stream,
    }
    rates = _rates({name: (lambda read=read: read(shards)) for name, read in readers.items()})  # type: ignore[misc]
    new, kept, ours = rates.values()
    rows = [(f"int16, {name}", f"{rate:,.0f}", f"{rate / new:.2f}", "raw, new") for name, rate in rates.items()]
    return [*rows, ("int16, stream", f"{ours:,.0f}", f"{ours / kept:.2f}", "raw, one buffer")]


def _rules() -> list[tuple[str, ...]]:
    images = np.stack([ct_like(number) for number in range(2)])
    tensor, rows = torch.from_numpy(images), []
    for name, rule in RULES.items():
        pair = interleaved(
            lambda rule=rule: in_range(tensor, rule), lambda rule=rule: by_numpy(images, rule), pairs=PAIRS
        )
        rate = images.nbytes / pair.first_s / 1e6
        rows.append((f"rule {name}", f"{rate:,.0f}", f"{pair.second_s / pair.first_s:.2f}", "numpy"))
    return rows


def by_numpy(images: np.ndarray, rule: Rule) -> np.ndarray:
    """The same rule, image by image."""
    if isinstance(rule, Windows):
        ends = [(window.low, window.high) for window in rule.windows]
        shown = [(np.clip(images, low, high) - low) / (high - low) * 2 - 1 for low, high in ends]
        return np.concatenate(shown, axis=1)
    result = np.empty(images.shape)
    for image, target in zip(images.astype(np.float64), result, strict=True):
        if isinstance(rule, Percentiles):
            low, high = np.percentile(image, [rule.low, rule.high])
            target[:] = (np.clip(image, low, high) - low) / (high - low) * 2 - 1
        elif isinstance(rule, ZScore):
            counted = image[image > image.mean()]
            target[:] = np.clip((image - counted.mean()) / counted.std(), -rule.limit, rule.limit) / rule.limit
    return result


def _rates(programs: dict[str, Callable[[], int]]) -> dict[str, float]:
    """MB per second of the processor of each, medians over repeats that alternate."""
    rates: dict[str, list[float]] = {name: [] for name in programs}
    for number in range(REPEATS + 1):
        for name, program in programs.items():
            started_s = time.process_time()
            count = program()
            if number:  # the first turn fills the page cache
                rates[name].append(count / (time.process_time() - started_s) / 1e6)
    return {name: statistics.median(values) for name, values in rates.items()}


def _stream(folder: Path) -> int:
    stream = SampleStream([ShardedDataset(folder, "train")], batch_size=BATCH, seed=0, readers=0)
    batches = itertools.islice(iter(stream), stream.batches_per_epoch)
    return sum(batch.images.nbytes for batch in batches)
