"""What a dataset is to the order of a stream, and the digest that tells one order from another."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from data_shards.order.lanes import Locality
from data_shards.order.plan import BatchPlan, Share
from data_shards.reading.reader import ShardedDataset
from data_shards.sample import MASK


def share_of(dataset: ShardedDataset, *, by_shard: bool) -> Share:
    """A name that tells it from the others, also one image of a folder of studies from another, and its samples.

    Args:
        dataset: one dataset of the mixture.
        by_shard: count its samples shard by shard too.
    """
    name = f"{dataset.card.name}/{dataset.split}"
    if not set(dataset.entry.images) <= {dataset.image, MASK}:
        name = f"{name}/{dataset.image}"
    return Share(name, len(dataset), dataset.shard_samples() if by_shard else ())


def order_digest(
    datasets: Sequence[ShardedDataset], plan: BatchPlan, batch_size: int, locality: Locality | None
) -> str:
    """16 hexadecimal digits of all that fixes the order; not of ranks and readers, which may change."""
    parts = [f"{dataset.manifest_digest}/{dataset.image}" for dataset in datasets]
    names = [share.name for share in plan.shares]
    lanes = None if locality is None else locality.model_dump()
    content = [plan.seed, batch_size, plan.turns, names, parts, lanes]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
