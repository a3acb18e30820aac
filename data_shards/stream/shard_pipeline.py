"""Shards opened as webdataset opens them: its steps compose on our exact order, with a state from which it goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import webdataset
from webdataset.filters import default_collation_fn

from data_shards.order.lanes import Locality
from data_shards.reading.reader import ShardedDataset
from data_shards.storage import Cache
from data_shards.stream.exact_samples import ExactSamples

Collate = Callable[[list[Any]], Any]


class ShardPipeline(webdataset.DataPipeline, webdataset.FluidInterface):
    """A pipeline of webdataset whose first stage is :class:`~data_shards.stream.exact_samples.ExactSamples`.

    ``map``, ``map_dict``, ``decode``, ``to_tuple``, ``select``, ``shuffle`` and the other steps are webdataset's own
    and give a new pipeline; all pipelines made from one have one state. Iterating shows what is left of an epoch, and
    iterating again the next epoch.

    Args:
        samples: the first stage.
    """

    def __init__(self, samples: ExactSamples) -> None:
        super().__init__(samples)

    @property
    def samples(self) -> ExactSamples:
        """The first stage."""
        first: ExactSamples = self.pipeline[0]
        return first

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of an epoch.

        A DataLoader with workers copies the pipeline, so there every epoch begins with this call or with
        :meth:`load_state_dict`; ``persistent_workers`` see it too, and refuse to go on without it.
        """
        self.samples.set_epoch(epoch)

    def state_dict(self, samples: int | None = None) -> dict[str, Any]:
        """The state, a few integers: epoch and position of all ranks together, and a digest of what fixes the order.

        Args:
            samples: how many samples this rank has used since the epoch was begun or resumed, the same on every rank.
                It has to be said where something stands between the shards and the loop that takes samples ahead: the
                workers of a DataLoader, or ``shuffle``. None counts those that have left the first stage.

        Raises:
            ConfigError: this is a worker of a DataLoader, or None was given while ``shuffle`` holds samples.
        """
        return self.samples.state_dict(samples)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Show at the next ``iter`` what was left at ``state``, perhaps on another number of ranks.

        Raises:
            CheckpointError: the state belongs to another order.
        """
        self.samples.load_state_dict(state)

    def __iter__(self) -> Iterator[Any]:
        """What is left of the epoch; iterating again shows the next epoch, or what a broken loop left.

        Raises:
            ConfigError: workers that live on after an epoch were not told the next one, or a loop was broken off while
                ``shuffle`` held samples, which would be lost.
        """
        self.samples.enter()  # with the first sample: what iter itself raises, a worker does not hand to its loader
        yield from super().__iter__()

    def shuffle(self, size: int, **options: Any) -> ShardPipeline:
        """As webdataset's own step, which mixes a buffer of ``size`` items; what it holds is counted.

        The order is a permutation of the whole epoch already. A state taken with a buffer in between counts the samples
        but not which ones they were: from there on, up to ``size`` are shown again in place of as many others.
        """
        if size < 1:
            return self
        composed: ShardPipeline = self.compose(_HeldShuffle(self.samples, webdataset.filters.shuffle(size, **options)))
        return composed

    def batched(
        self, batchsize: int, collation_fn: Collate | None = default_collation_fn, partial: bool = True
    ) -> ShardPipeline:
        """As webdataset's own step, which takes one sample ahead of each batch; this one takes none."""
        composed: ShardPipeline = self.compose(_batched(batchsize, collation_fn, partial))
        return composed

    def listed(self, batchsize: int, partial: bool = True) -> ShardPipeline:
        """Lists of samples, not collated."""
        return self.batched(batchsize, None, partial)


def webdataset_pipeline(
    where: str | Path,
    split: str,
    *,
    seed: int,
    batch_size: int = 256,
    epoch: int = 0,
    rank: int = 0,
    world_size: int = 1,
    image: str | None = None,
    cache: Cache | None = None,
    locality: Locality | None = None,
    neighbours: int = 1,
) -> ShardPipeline:
    """A folder of shards as a webdataset pipeline, in place of ``WebDataset(urls).shuffle(...)``.

    A sample is what webdataset makes of the same tars: ``__key__``, ``__url__`` and the bytes of every file by its
    suffix, such as ``npy`` and ``json``; ``cls`` is added where the label is one whole number. Each epoch shows every
    sample once, in an order that ``seed``, ``batch_size`` and the epoch fix; the ranks share it without gap or overlap,
    and so do the workers of a DataLoader.

    Args:
        where: a folder of shards, written or adopted, or the URL of one.
        split: ``train``, ``val`` or ``test``.
        seed: fixes the order.
        batch_size: the order is the one of a :class:`~data_shards.stream.SampleStream` with global batches of this
            size; the pipeline itself gives single samples.
        epoch: the first epoch.
        rank: which rank this is.
        world_size: how many ranks there are.
        image: the studies that have this image; may be left out when they have only one.
        cache: where copies of remote shards are kept.
        locality: as of the stream.
        neighbours: how many samples in a row one worker of a DataLoader takes. With the size of the batches that are
            made in the workers, any number of workers gives the same batches in the same order.

    Raises:
        DataError: the folder, split or image is not there.
        ConfigError: an argument that cannot be used.
    """
    dataset = ShardedDataset(where, split, image=image, cache=cache)
    return ShardPipeline(
        ExactSamples(
            dataset,
            seed=seed,
            batch_size=batch_size,
            epoch=epoch,
            rank=rank,
            world_size=world_size,
            locality=locality,
            neighbours=neighbours,
        )
    )


class _HeldShuffle(webdataset.PipelineStage):
    """A shuffle that tells the first stage how many items it holds."""

    def __init__(self, samples: ExactSamples, shuffle: Callable[[Iterator[Any]], Iterator[Any]]) -> None:
        self._samples, self._shuffle = samples, shuffle

    def run(self, source: Iterable[Any]) -> Iterator[Any]:
        for item in self._shuffle(self._taken(source)):
            self._samples.held -= 1
            yield item

    def _taken(self, source: Iterable[Any]) -> Iterator[Any]:
        for item in source:
            self._samples.held += 1
            yield item


def _exact_batches(samples: Iterable[Any], size: int, collate: Collate | None, partial: bool) -> Iterator[Any]:
    batch: list[Any] = []
    for sample in samples:
        batch.append(sample)
        if len(batch) == size:
            yield batch if collate is None else collate(batch)
            batch = []
    if batch and partial:
        yield batch if collate is None else collate(batch)


_batched = webdataset.pipelinefilter(_exact_batches)
