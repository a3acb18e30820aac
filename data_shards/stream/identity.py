"""What a dataset is to the order of a stream, and the digest that tells one order from another."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

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


def shares_of(datasets: Sequence[ShardedDataset], *, by_shard: bool) -> list[Share]:
    """As :func:`share_of`; datasets of one name, such as one set at several difficulties, also have their digests."""
    shares = [share_of(dataset, by_shard=by_shard) for dataset in datasets]
    count = Counter(share.name for share in shares)
    return [
        replace(share, name=f"{share.name}/{dataset.manifest_digest[:12]}") if count[share.name] > 1 else share
        for share, dataset in zip(shares, datasets, strict=True)
    ]


def order_digest(
    datasets: Sequence[ShardedDataset], plan: BatchPlan, batch_size: int, locality: Locality | None
) -> str:
    """16 hexadecimal digits of all that fixes the order; not of ranks and readers, which may change."""
    parts = [f"{dataset.manifest_digest}/{dataset.image}{dataset.form}" for dataset in datasets]
    names = [share.name for share in plan.shares]
    lanes = None if locality is None else locality.model_dump()
    content = [plan.seed, batch_size, plan.turns, names, parts, lanes]
    if plan.mixture.stages:
        content.append([[stage.first, *stage.weights] for stage in plan.mixture.stages])
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
