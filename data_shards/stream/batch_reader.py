"""From a place in the stream to the batch of one rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from data_shards.order.plan import BatchPlan, GlobalBatch, part
from data_shards.reading.reader import ShardedDataset
from data_shards.stream.batch import Batch


@dataclass(frozen=True)
class StreamState:
    """Where a stream stands: the next batch to hand out.

    Attributes:
        epoch: epoch of the stream, from 0.
        batch: position in the epoch, from 0.
    """

    epoch: int = 0
    batch: int = 0

    def after(self, batches_per_epoch: int) -> StreamState:
        """The state when this batch was handed out."""
        if self.batch + 1 < batches_per_epoch:
            return StreamState(self.epoch, self.batch + 1)
        return StreamState(self.epoch + 1, 0)


class BatchReader:
    """Reads any batch of one rank; threads may share it, and another process gets its own by pickling.

    Args:
        datasets: the mixture.
        plan: the global batches of the mixture.
        rank: which rank.
        world_size: of how many.
    """

    def __init__(self, datasets: Sequence[ShardedDataset], plan: BatchPlan, rank: int, world_size: int) -> None:
        self._datasets = tuple(datasets)
        self._plan = plan
        self._rank = rank
        self._world_size = world_size

    def __call__(self, state: StreamState) -> Batch:
        """The batch at ``state``.

        Raises:
            DataError: a shard is damaged; the message names it and the sample.
        """
        drawn = self._plan.global_batch(state.epoch, state.batch)
        dataset = self._datasets[drawn.dataset]
        sample_B = self._own(drawn)
        records = dataset.read(sample_B, drawn.dataset_epoch)
        bounds = [part(drawn.size, rank, self._world_size) for rank in range(self._world_size)]
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
            attributes={name: torch.from_numpy(values) for name, values in records.attributes.items()},
        )

    def pinned(self, state: StreamState) -> Batch:
        """The batch at ``state`` in page-locked memory."""
        return self(state).pin_memory()

    def prefetch(self, state: StreamState) -> None:
        """Start to bring the shards of the batch at ``state`` to this node."""
        drawn = self._plan.global_batch(state.epoch, state.batch)
        self._datasets[drawn.dataset].prefetch(self._own(drawn))

    def _own(self, drawn: GlobalBatch) -> np.ndarray:
        return drawn.samples(*part(drawn.size, self._rank, self._world_size))
