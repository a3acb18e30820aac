"""The sample stream: every sample exactly once per epoch, resumable at any batch, on any number of ranks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from data_shards.batch import Batch
from data_shards.plan import BatchPlan, Share, part
from data_shards.prefetch import prefetch
from data_shards.reader import ShardedDataset
from data_shards.support.errors import CheckpointError, ConfigError


@dataclass(frozen=True)
class StreamState:
    """Where a stream stands: the next batch to hand out.

    Attributes:
        epoch: epoch of the stream, from 0.
        batch: position in the epoch, from 0.
    """

    epoch: int = 0
    batch: int = 0


class SampleStream:
    """Batches of one rank, without end, in an order that depends on seed and epoch alone.

    Rank ``r`` of ``W`` holds rows ``r*n//W`` to ``(r+1)*n//W`` of a global batch of ``n``, so every rank gets the same
    number of batches and all ranks together every sample once. Reading ahead does not count: :attr:`state` names the
    batch after the last one that was handed out, and a stream that starts from it, on any number of ranks, shows
    exactly what was left.

    Args:
        datasets: one dataset, or the mixture; the images of each have one shape and dtype.
        batch_size: the largest global batch, all ranks together.
        seed: fixes the order.
        rank: which rank this is.
        world_size: how many ranks there are.
        weights: see :class:`~data_shards.plan.BatchPlan`; None shows every sample of every dataset once per epoch.
        prefetch: batches read ahead by a background thread; 0 reads in the caller's thread.

    Raises:
        ConfigError: an argument that cannot be used, or a dataset whose images differ in shape.
    """

    def __init__(
        self,
        datasets: Sequence[ShardedDataset],
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        weights: Sequence[float] | None = None,
        prefetch: int = 2,
    ) -> None:
        if not 0 <= rank < world_size:
            raise ConfigError(f"rank {rank} of {world_size} ranks; expected 0 to {world_size - 1}")
        for dataset in datasets:
            if dataset.image_shape is None:
                raise ConfigError(f"{dataset.folder}: images differ in shape or dtype; a batch holds one geometry")
        self.datasets = tuple(datasets)
        self.rank = rank
        self.world_size = world_size
        self.state = StreamState()
        self._prefetch = prefetch
        shares = [Share(f"{dataset.card.name}/{dataset.split}", len(dataset)) for dataset in datasets]
        self._plan = BatchPlan(shares, batch_size=batch_size, seed=seed, weights=weights)
        self._order = self._order_digest(batch_size, seed)

    @property
    def batches_per_epoch(self) -> int:
        """Batches of an epoch, the same on every rank."""
        return self._plan.batches_per_epoch

    def state_dict(self) -> dict[str, Any]:
        """The state, and a digest of what fixes the order; not of rank and world size, which may change."""
        return {"epoch": self.state.epoch, "batch": self.state.batch, "order": self._order}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where ``state`` was taken, perhaps on another number of ranks; takes effect at the next ``iter``.

        Raises:
            CheckpointError: the state belongs to another order (seed, batch size, datasets or weights), so continuing
                would repeat some samples and skip others.
        """
        if state.get("order") != self._order:
            raise CheckpointError(
                "the stream state was taken with another seed, batch size, dataset or weight; "
                "an epoch that was begun can only go on with the same ones"
            )
        self.state = StreamState(int(state["epoch"]), int(state["batch"]))

    def __iter__(self) -> Iterator[Batch]:
        """Batches from :attr:`state` on, without end; closing or dropping the iterator ends its thread.

        Raises:
            DataError: a shard is damaged; the message names it and the sample.
        """
        for batch in prefetch(self._batches(self.state), self._prefetch):
            self.state = self._after(StreamState(batch.epoch, batch.batch))
            yield batch

    def _batches(self, state: StreamState) -> Iterator[Batch]:
        while True:
            yield self._read(state)
            state = self._after(state)

    def _after(self, state: StreamState) -> StreamState:
        if state.batch + 1 < self.batches_per_epoch:
            return StreamState(state.epoch, state.batch + 1)
        return StreamState(state.epoch + 1, 0)

    def _read(self, state: StreamState) -> Batch:
        drawn = self._plan.global_batch(state.epoch, state.batch)
        dataset = self.datasets[drawn.dataset]
        bounds = [part(len(drawn.sample_B), rank, self.world_size) for rank in range(self.world_size)]
        sample_B = drawn.sample_B[slice(*bounds[self.rank])]
        records = dataset.read(sample_B)
        return Batch(
            images=torch.from_numpy(records.stacked),
            label_BL=torch.from_numpy(records.label_BL),
            sample_B=torch.from_numpy(sample_B),
            organ_B=torch.from_numpy(records.organ_B),
            modality_B=torch.from_numpy(records.modality_B),
            task_B=torch.from_numpy(records.task_B),
            spacing_mm_BA=torch.from_numpy(records.spacing_mm_BA),
            dataset_epoch=drawn.dataset_epoch,
            dataset=drawn.dataset,
            name=dataset.card.name,
            epoch=state.epoch,
            batch=state.batch,
            rows=tuple(last - first for first, last in bounds),
        )

    def _order_digest(self, batch_size: int, seed: int) -> str:
        parts = [dataset.manifest_digest for dataset in self.datasets]
        content = [seed, batch_size, self._plan.turns, [share.name for share in self._plan.shares], parts]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
