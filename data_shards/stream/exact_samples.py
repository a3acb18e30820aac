"""The first stage of a webdataset pipeline: the samples of one rank and worker, one by one, in the exact order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
import webdataset
from torch.utils.data import get_worker_info

from data_shards.order.lanes import Locality
from data_shards.order.plan import BatchPlan
from data_shards.reading.members import Members
from data_shards.reading.reader import ShardedDataset
from data_shards.stream.identity import order_digest, share_of
from data_shards.support.errors import CheckpointError, ConfigError


class ExactSamples(webdataset.PipelineStage):
    """Every sample of a split once per epoch, as webdataset gives it: a mapping of the files to their bytes.

    The order of all ranks together is that of a :class:`~data_shards.stream.SampleStream` of the same dataset, seed,
    batch size and locality. Sample ``p`` of it, counted from the one where the epoch was begun or resumed, belongs to
    rank ``p % world_size``, so that any number of samples that every rank has used is a beginning of the order. In a
    DataLoader, the workers of a rank take turns with ``neighbours`` samples in a row: the loader then hands out what
    one process would.

    Args:
        dataset: the split.
        seed: fixes the order.
        batch_size: fixes the order too, as in the stream.
        epoch: the first epoch.
        rank: which rank this is.
        world_size: how many ranks there are.
        locality: see :class:`~data_shards.stream.SampleStream`.
        neighbours: how many samples in a row one worker takes.

    Raises:
        ConfigError: an argument that cannot be used.
    """

    _times: int

    def __init__(
        self,
        dataset: ShardedDataset,
        *,
        seed: int,
        batch_size: int,
        epoch: int = 0,
        rank: int = 0,
        world_size: int = 1,
        locality: Locality | None = None,
        neighbours: int = 1,
    ) -> None:
        if not 0 <= rank < world_size:
            raise ConfigError(f"rank {rank} of {world_size} ranks; expected 0 to {world_size - 1}")
        if epoch < 0 or neighbours < 1:
            raise ConfigError(f"epoch {epoch} and {neighbours} neighbours; expected at least 0 and 1")
        self.dataset = dataset
        self._rank, self._world_size, self._neighbours = rank, world_size, neighbours
        share = share_of(dataset, by_shard=locality is not None)
        self._plan = BatchPlan([share], batch_size=batch_size, seed=seed, locality=locality)
        self._order = order_digest([dataset], self._plan, batch_size, locality)
        self.held = 0
        """How many items a later step has taken and not handed on; iterating anew would lose them."""
        self._in_worker = False
        # How often a beginning was set, its epoch and its position: seen by workers that live on after an epoch.
        self._wanted = torch.zeros(3, dtype=torch.int64).share_memory_()
        self.set_epoch(epoch)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._wanted.share_memory_()  # a copy has its own workers; nothing is changed on the way to a worker

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of an epoch."""
        self._begin(epoch, 0)

    def state_dict(self, samples: int | None = None) -> dict[str, Any]:
        """Where the next run begins when this rank, and so every other, has used ``samples`` more.

        Args:
            samples: counted from where the epoch was begun or resumed; None takes those that have left this stage in
                this process.

        Raises:
            ConfigError: this is a worker, or ``samples`` is None and a later step holds some of them.
        """
        if get_worker_info() is not None:
            raise ConfigError("a worker does not know what its loader has handed out: state_dict(samples) in the loop")
        if samples is None:
            self._check_held("say how many samples were used, state_dict(samples)")
        epoch, position = self._after(self._given if samples is None else samples)
        return {"epoch": epoch, "position": position, "order": self._order}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Begin the next run at ``state``, which may be of another number of ranks.

        Raises:
            CheckpointError: it belongs to another order.
        """
        if state.get("order") != self._order or "position" not in state:
            raise CheckpointError(
                "the pipeline state was taken with another seed, batch size or dataset; an epoch that was begun can "
                "only go on with the same ones"
            )
        self._begin(int(state["epoch"]), int(state["position"]))

    def enter(self) -> None:
        """Begin a pass; a worker that lives on after an epoch takes the beginning that was set since.

        Raises:
            ConfigError: none was set. What the loader has handed out is not known here, nor would the process of the
                loader know which epoch it is in.
        """
        if get_worker_info() is None:
            return
        if self._in_worker:
            times, epoch, start = (int(number) for number in self._wanted)
            if times == self._times:
                raise ConfigError("persistent workers: begin every epoch with set_epoch or load_state_dict")
            self._times = times
            self._set(epoch, start)
        self._in_worker = True

    def run(self) -> Iterator[dict[str, Any]]:
        """The samples that are left of the epoch; the next run shows the next epoch.

        Raises:
            ConfigError: a later step holds samples of a loop that was broken off.
            DataError: a shard is damaged.
        """
        self._check_held("go on with set_epoch or load_state_dict")
        # Only now: until the next run, later steps may still hand out the end of an epoch that has left this stage.
        self._set(*self._after(self._given))
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info is not None else (0, 1)
        for indices in self._indices(worker, workers):
            if self.dataset.remote:
                self.dataset.prefetch(indices)
            for members in self.dataset.members(indices):
                self._given += 1
                yield _sample(members)
        self._ended = True

    def _begin(self, epoch: int, start: int) -> None:
        """Set where the next run begins, here and in workers that live on."""
        self._set(epoch, start)
        self._times = int(self._wanted[0]) + 1
        self._wanted.copy_(torch.tensor([self._times, epoch, start]))

    def _set(self, epoch: int, start: int) -> None:
        self._epoch, self._start, self._given, self._ended, self.held = epoch, start, 0, False, 0

    def _after(self, used: int) -> tuple[int, int]:
        """Epoch and position after ``used`` samples of this rank; a rank with a shorter share may end before."""
        position = self._start + used * self._world_size
        done = position >= len(self.dataset) or (self._ended and used >= self._given)
        return (self._epoch + 1, 0) if done else (self._epoch, position)

    def _check_held(self, remedy: str) -> None:
        if self.held:
            raise ConfigError(f"shuffle holds {self.held} items that were not handed out: {remedy}")

    def _indices(self, worker: int, workers: int) -> Iterator[np.ndarray]:
        """Own samples of one global batch after the other, as positions in the dataset."""
        begin = 0
        for number in range(self._plan.batches_per_epoch):
            drawn = self._plan.global_batch(self._epoch, number)
            position = np.arange(begin, begin + drawn.size) - self._start
            turn, rank = np.divmod(position, self._world_size)
            own = (position >= 0) & (rank == self._rank) & (turn // self._neighbours % workers == worker)
            if own.any():
                yield drawn.sample_B[own]
            begin += drawn.size


def _sample(members: Members) -> dict[str, Any]:
    """A sample in the form of webdataset; ``cls`` is added where the label is one whole number."""
    sample: dict[str, Any] = {"__key__": members.key, "__url__": members.shard, **members.files}
    label = members.label
    if label is not None and label.shape == (1,) and label.dtype.kind == "i" and "cls" not in sample:
        sample["cls"] = b"%d" % label[0]
    return sample
