"""The sample stream: every sample exactly once per epoch, resumable at any batch, on any number of ranks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from data_shards.order.lanes import Locality
from data_shards.order.mixture import Stage
from data_shards.order.plan import BatchPlan
from data_shards.reading.pixels import SMALL_BYTES
from data_shards.reading.reader import ShardedDataset
from data_shards.stream.batch import Batch
from data_shards.stream.batch_reader import BatchReader, StreamState
from data_shards.stream.identity import order_digest, shares_of
from data_shards.stream.prefetch import read_in_threads
from data_shards.stream.reader_processes import check_shared_memory, read_in_processes
from data_shards.support.errors import CheckpointError, ConfigError

READER_KINDS = ("thread", "process")
# Large local images that the disk is told of before they are read.
_ANNOUNCED_BYTES = 64 << 20


class SampleStream:
    """Batches of one rank, without end, in an order that depends on seed and epoch alone.

    Rank ``r`` of ``W`` holds rows ``r*n//W`` to ``(r+1)*n//W`` of a global batch of ``n``, so every rank gets the same
    number of batches and all ranks together every sample once. Reading ahead does not count: :attr:`state` names the
    batch after the last one that was handed out, and a stream that starts from it, on any number of ranks and readers,
    shows exactly what was left.

    Args:
        datasets: one dataset, or the mixture; the images of each have one shape and dtype.
        batch_size: the largest global batch, all ranks together.
        seed: fixes the order.
        rank: which rank this is.
        world_size: how many ranks there are.
        weights: see :class:`~data_shards.order.plan.BatchPlan`; None shows every sample of every dataset once per
            epoch.
        locality: None shuffles each dataset as a whole; else batches come from few shards at a time, see
            :class:`~data_shards.order.lanes.LaneOrder`.
        stages: a curriculum, see :class:`~data_shards.order.plan.BatchPlan`.
        readers: how many threads or processes read ahead; 0 reads in the caller's thread.
        reader_kind: ``thread`` or ``process``. Threads are enough for raw pixels, which are read and checked without
            holding Python's lock; processes are for shards whose pictures have to be decoded.
        prefetch: batches read ahead by all readers together; 0 is as no reader.
        pin_memory: hand out batches in page-locked memory.
        lookahead: of how many of the next batches the remote shards are fetched, and large local images announced to
            the system, these for 64 MiB at most.
        timeout_s: the longest wait for a batch of reader processes.

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
        locality: Locality | None = None,
        stages: Sequence[Stage] | None = None,
        readers: int = 1,
        reader_kind: str = "thread",
        prefetch: int = 2,
        pin_memory: bool = False,
        lookahead: int = 32,
        timeout_s: float = 600.0,
    ) -> None:
        if not 0 <= rank < world_size:
            raise ConfigError(f"rank {rank} of {world_size} ranks; expected 0 to {world_size - 1}")
        if reader_kind not in READER_KINDS:
            raise ConfigError(f"reader_kind {reader_kind!r}; expected {' or '.join(READER_KINDS)}")
        if readers < 0 or prefetch < 0 or lookahead < 0 or not timeout_s > 0:
            raise ConfigError("readers, prefetch and lookahead are numbers from 0 on, timeout_s is above 0")
        if pin_memory and not torch.cuda.is_available():
            raise ConfigError("pin_memory is for copies to a CUDA device, and this machine has none")
        for dataset in datasets:
            if dataset.image_shape is None:
                raise ConfigError(
                    f"{dataset.folder}: images differ in shape or dtype; a batch holds one geometry: build the shards "
                    "again with prepare.size, which brings all images to one"
                )
        self.datasets = tuple(datasets)
        self.rank = rank
        self.world_size = world_size
        self.state = StreamState()
        self._readers = readers if prefetch else 0
        self._reader_kind = reader_kind
        self._prefetch = prefetch
        self._pin_memory = pin_memory
        self._lookahead = lookahead
        self._timeout_s = timeout_s
        shares = shares_of(datasets, by_shard=locality is not None)
        self._plan = BatchPlan(
            shares, batch_size=batch_size, seed=seed, weights=weights, locality=locality, stages=stages
        )
        self._read = BatchReader(datasets, self._plan, rank, world_size)
        self._batch_size = batch_size
        if not any(dataset.remote for dataset in datasets):
            largest = max(dataset.image_bytes for dataset in datasets)
            batch_bytes = largest * -(-batch_size // world_size)
            self._lookahead = min(lookahead, -(-_ANNOUNCED_BYTES // batch_bytes)) if largest > SMALL_BYTES else 0
        self._order = order_digest(datasets, self._plan, batch_size, locality)

    @property
    def batches_per_epoch(self) -> int:
        """Batches of an epoch, the same on every rank."""
        return self._plan.batches_per_epoch

    def state_dict(self) -> dict[str, Any]:
        """The state, and a digest of what fixes the order; not of ranks and readers, which may change."""
        return {"epoch": self.state.epoch, "batch": self.state.batch, "order": self._order}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where ``state`` was taken, perhaps on another number of ranks; takes effect at the next ``iter``.

        Raises:
            CheckpointError: the state belongs to another order (seed, batch size, datasets, weights or stages), so
                continuing would repeat some samples and skip others.
        """
        if state.get("order") != self._order:
            raise CheckpointError(
                "the stream state was taken with another seed, batch size, dataset, weight or curriculum; "
                "an epoch that was begun can only go on with the same ones"
            )
        self.state = StreamState(int(state["epoch"]), int(state["batch"]))

    def __iter__(self) -> Iterator[Batch]:
        """Batches from :attr:`state` on, without end; closing or dropping the iterator ends its readers.

        Raises:
            DataError: a shard is damaged, the message names it and the sample; or a reader process died.
        """
        for batch in self._batches():
            self.state = self._after(StreamState(batch.epoch, batch.batch))
            yield batch
            del batch  # a consumer that drops its batch frees it before the next one comes

    def _batches(self) -> Iterator[Batch]:
        states = self._states(self.state)
        if self._readers and self._reader_kind == "process":
            check_shared_memory(self._bytes_ahead())
            return read_in_processes(
                self._read,
                states,
                readers=self._readers,
                ahead=self._prefetch,
                pin_memory=self._pin_memory,
                timeout_s=self._timeout_s,
            )
        read = self._read.pinned if self._pin_memory else self._read
        return read_in_threads(read, states, readers=self._readers, ahead=self._prefetch)

    def _states(self, state: StreamState) -> Iterator[StreamState]:
        """All states from ``state`` on; the remote shards of the batches to come are asked for in time."""
        coming = state
        asked = 0
        while True:
            while asked < self._lookahead:
                self._read.prefetch(coming)
                coming, asked = self._after(coming), asked + 1
            yield state
            state, asked = self._after(state), asked - 1

    def _after(self, state: StreamState) -> StreamState:
        return state.after(self.batches_per_epoch)

    def _bytes_ahead(self) -> int:
        """The most that batches on their way from reader processes take."""
        sample = max(dataset.image_bytes for dataset in self.datasets)
        return sample * -(-self._batch_size // self.world_size) * (self._prefetch + self._readers)
