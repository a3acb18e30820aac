"""What the order of 10^9 samples costs each rank and node: computed, not extrapolated, but without the pixels."""

from __future__ import annotations

import hashlib
import tempfile
import time
import tracemalloc
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.data import RandomImages, random_file
from benchmarks.table import Table
from data_shards.format.manifest import FILE_NAME, ShardEntry, read_manifest, write_manifest
from data_shards.order.lanes import LaneOrder, Locality
from data_shards.order.plan import BatchPlan, GlobalBatch, Share, part
from data_shards.writing.writer import write_dataset

SAMPLES = 10**9
SHARD_BYTES = 64 << 20
# A 28x28x3 image with its headers and metadata in the tar file, and its record in the index.
SAMPLE_BYTES, RECORD_BYTES = 3584 + 512, 180
RANKS = (1, 8, 64, 512)
RANKS_OF_A_NODE = 8
BATCH_PER_RANK = 64
LANES_OF_A_NODE = 8
SHARDS_IN_A_WINDOW = 4
_BATCHES = 40
_MIB, _TIB = 1 << 20, 1 << 40


@dataclass(frozen=True)
class Cost:
    """What one number of ranks costs.

    Attributes:
        ranks: how many.
        order_bytes: memory of the order on a rank, at its largest.
        begin_s: time from nothing to the samples of the first batch of an epoch.
        resume_s: the same for a batch in the middle of the epoch, in a fresh process.
        batch_s: time for the samples of a further batch, median.
        node_shards: shards that one node reads in an epoch.
    """

    ranks: int
    order_bytes: int
    begin_s: float
    resume_s: float
    batch_s: float
    node_shards: int


def run() -> Table:
    """A row for each number of ranks."""
    per_shard = SHARD_BYTES // SAMPLE_BYTES
    shards = tuple(np.diff(np.append(np.arange(0, SAMPLES, per_shard), SAMPLES)).tolist())
    rows = [_row(cost, len(shards)) for cost in (_cost(shards, per_shard, ranks) for ranks in RANKS)]
    return Table(
        title=f"The order of {SAMPLES:,} samples in {len(shards):,} shards",
        command="python -m benchmarks scaling",
        columns=(
            "ranks (nodes)",
            "order, MiB a rank",
            "first batch, s",
            "resumed batch, s",
            "next batch, ms",
            "read a node and epoch, TiB",
            "of its share",
            "needed at a time, GiB",
            "full shuffle: read a node and epoch, TiB",
        ),
        rows=tuple(rows),
        remarks=f"{BATCH_PER_RANK} samples a rank and batch, {RANKS_OF_A_NODE} ranks a node, {LANES_OF_A_NODE} lanes a "
        f"node, windows of {SHARDS_IN_A_WINDOW} shards of {SHARD_BYTES >> 20} MiB. The order is our own code at full "
        "size; bytes are counted from the shards that the lanes of the busiest node touch. A full shuffle sends every "
        f"node through every shard. {_opening(len(shards))}",
    )


def _cost(shards: tuple[int, ...], per_shard: int, ranks: int) -> Cost:
    nodes = max(1, ranks // RANKS_OF_A_NODE)
    locality = Locality(lanes=nodes * LANES_OF_A_NODE, window=SHARDS_IN_A_WINDOW * per_shard)
    batch_size = BATCH_PER_RANK * ranks
    tracemalloc.start()
    plan, _ = _first(shards, locality, batch_size, 0, ranks)
    for position in range(1, 4):
        _rows_of(plan.global_batch(0, position), ranks - 1, ranks)
    order_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    plan, begin_s = _first(shards, locality, batch_size, 0, ranks)
    middle = plan.batches_per_epoch // 2
    _, resume_s = _first(shards, locality, batch_size, middle, ranks)
    times = []
    for position in range(1, _BATCHES):
        started_s = time.perf_counter()
        _rows_of(plan.global_batch(0, position), ranks - 1, ranks)
        times.append(time.perf_counter() - started_s)
    order = LaneOrder(np.array(shards), locality, 0, "dataset", "set", 0)
    return Cost(ranks, order_bytes, begin_s, resume_s, float(np.median(times)), _busiest(order, plan, nodes, per_shard))


def _first(
    shards: tuple[int, ...], locality: Locality, batch_size: int, position: int, ranks: int
) -> tuple[BatchPlan, float]:
    started_s = time.perf_counter()
    plan = BatchPlan([Share("set", SAMPLES, shards)], batch_size=batch_size, seed=0, locality=locality)
    batch = plan.global_batch(0, position)
    _rows_of(batch, ranks - 1, ranks)
    return plan, time.perf_counter() - started_s


def _rows_of(batch: GlobalBatch, rank: int, ranks: int) -> np.ndarray:
    return batch.samples(*part(batch.size, rank, ranks))


def _busiest(order: LaneOrder, plan: BatchPlan, nodes: int, per_shard: int) -> int:
    """Shards that the busiest node reads in an epoch; that its batches touch no others is looked at on some of them."""
    own = [order.shards_of(node * LANES_OF_A_NODE, (node + 1) * LANES_OF_A_NODE) for node in range(nodes)]
    node = max(range(nodes), key=lambda each: len(own[each]))
    for position in np.linspace(0, plan.batches_per_epoch - 1, _BATCHES).astype(int):
        batch = plan.global_batch(0, int(position))
        touched = batch.samples(*part(batch.size, node, nodes)) // per_shard
        # In a batch that is one sample short the cut between two nodes moves by one row: a neighbour's lane is touched.
        strangers = ~np.isin(touched, own[node])
        if strangers.sum() > 2:
            raise AssertionError(f"{strangers.sum()} samples of a batch lie in shards of other nodes")
    return len(own[node])


def _opening(shards: int) -> str:
    """What a manifest of so many shards costs."""
    name = "random-train-{:06d}"
    digest = hashlib.sha256(b"").hexdigest()
    entries = tuple(
        ShardEntry(
            file=f"{name}.tar".format(number),
            samples=SAMPLES // shards,
            bytes=SHARD_BYTES,
            sha256=digest,
            index=f"{name}.index.npy".format(number),
            index_bytes=RECORD_BYTES,
            index_sha256=digest,
        )
        for number in range(shards)
    )
    with tempfile.TemporaryDirectory() as folder:
        source = RandomImages(random_file(Path(folder) / "images.npy", (2, 3, 28, 28)))
        small = write_dataset(source, Path(folder) / "shards")
        train = small.splits["train"].model_copy(update={"shards": entries})
        large = small.model_copy(update={"splits": {"train": train}})
        write_manifest(Path(folder), large)
        del large, train, entries
        size = (Path(folder) / FILE_NAME).stat().st_size
        started_s = time.perf_counter()
        read_manifest(Path(folder))
        took_s = time.perf_counter() - started_s
        tracemalloc.start()
        kept = read_manifest(Path(folder))
        memory, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    bits = memory * 8 / SAMPLES
    return (
        f"The manifest of as many shards ({len(kept.splits['train'].shards):,}) is {size / _MIB:.0f} MiB, is read and "
        f"checked in {took_s:.1f} s and takes {memory / _MIB:.0f} MiB of memory, {bits:.2f} bits a sample."
    )


def _row(cost: Cost, shards: int) -> tuple[str, ...]:
    nodes = max(1, cost.ranks // RANKS_OF_A_NODE)
    shard = SHARD_BYTES + SHARD_BYTES // SAMPLE_BYTES * RECORD_BYTES
    return (
        f"{cost.ranks} ({nodes})",
        f"{cost.order_bytes / _MIB:.1f}",
        f"{cost.begin_s:.3f}",
        f"{cost.resume_s:.3f}",
        f"{cost.batch_s * 1e3:.2f}",
        f"{cost.node_shards * shard / _TIB:.3f}",
        f"{cost.node_shards * nodes / shards:.4f}",
        f"{LANES_OF_A_NODE * (SHARDS_IN_A_WINDOW + 2) * shard / (1 << 30):.1f}",
        f"{shards * shard / _TIB:.2f}",
    )
