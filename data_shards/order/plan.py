"""Which batch comes when: the global order of a mixture as a pure function of seed, epoch and batch position.

Within a dataset, its epoch ``e`` is one permutation of its samples, keyed by seed, dataset and ``e``, cut into
``ceil(N / batch_size)`` batches whose sizes differ by at most one: nothing is dropped and no last batch is tiny.
Over the datasets, the order of the batches of an epoch is a permutation of their positions. Nothing here knows of
ranks or readers; of shards only when a locality is asked for.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_shards.order.lanes import LaneOrder, Locality
from data_shards.order.mixture import Mixture, Stage
from data_shards.order.mixture import shares as shares_of_total
from data_shards.order.permutation import Permutation
from data_shards.support.errors import ConfigError

# Samples of small batches are drawn together with the next ones: for a few the permutation would take as long.
_SAMPLES_AT_ONCE = 2048


@dataclass(frozen=True)
class Share:
    """One dataset of a mixture.

    Attributes:
        name: no other dataset of the mixture has it.
        samples: how many.
        shards: samples of each shard, in order; needed for a locality only.
    """

    name: str
    samples: int
    shards: tuple[int, ...] = ()


@dataclass(frozen=True)
class GlobalBatch:
    """The batch of all ranks together.

    Attributes:
        dataset: position of its dataset in the mixture.
        dataset_epoch: the dataset's own epoch, which differs from that of the mixture when weights are given.
        first: the position in the dataset's epoch where the batch begins.
        size: how many samples.
        lanes: lanes of the locality; rows of one lane are neighbours in the batch.
        order: position in the dataset's epoch to index within the dataset.
    """

    dataset: int
    dataset_epoch: int
    first: int
    size: int
    lanes: int
    order: Callable[[np.ndarray], np.ndarray]

    def samples(self, first: int, last: int) -> np.ndarray:
        """Indices, within the dataset, of the rows from ``first`` to ``last - 1``, int64; only these are computed."""
        rows = np.arange(self.size)
        if self.lanes > 1:
            rows = rows[np.argsort((self.first + rows) % self.lanes, kind="stable")]
        return self.order(self.first + rows[first:last])

    @property
    def sample_B(self) -> np.ndarray:
        """Indices of all rows."""
        return self.samples(0, self.size)


class BatchPlan:
    """The global batches of every epoch.

    Args:
        shares: the datasets.
        batch_size: the largest global batch.
        seed: fixes the order.
        weights: None for natural weights: an epoch shows every sample of every dataset once. Else positive numbers,
            one per dataset: an epoch has as many batches as before, apportioned by weight, and each dataset goes
            through epochs of its own, exactly once per sample each, from one epoch of the mixture into the next.
        locality: None shuffles each dataset as a whole; else see :class:`~data_shards.order.lanes.LaneOrder`.
        stages: a curriculum: other weights from some steps on, instead of ``weights``.

    Raises:
        ConfigError: a weight, size, stage or name that cannot be used.
    """

    def __init__(
        self,
        shares: Sequence[Share],
        *,
        batch_size: int,
        seed: int,
        weights: Sequence[float] | None = None,
        locality: Locality | None = None,
        stages: Sequence[Stage] | None = None,
    ) -> None:
        self._arguments: dict[str, Any] = {
            "batch_size": batch_size,
            "seed": seed,
            "weights": weights,
            "locality": locality,
            "stages": stages,
        }
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}, expected at least 1")
        if weights is not None and stages is not None:
            raise ConfigError("weights and stages exclude each other")
        if not shares:
            raise ConfigError("a stream needs at least one dataset")
        names = [share.name for share in shares]
        if len(set(names)) < len(names):
            raise ConfigError(f"a dataset is given twice: {', '.join(names)}")
        for share in shares:
            if share.samples < 1:
                raise ConfigError(f"{share.name} has no samples")
            if locality is not None and sum(share.shards) != share.samples:
                raise ConfigError(f"{share.name}: shards of {sum(share.shards)} samples, expected {share.samples}")
        self.shares = tuple(shares)
        self.seed = seed
        self.cycle = [-(-share.samples // batch_size) for share in shares]
        self.turns = self.cycle if weights is None else apportion(sum(self.cycle), weights, names)
        self.mixture = Mixture(names, self.turns, seed, stages)
        self._locality = locality
        self._order = functools.lru_cache(2 * len(shares) + 2)(self._make_order)
        self._drawn_samples = functools.lru_cache(2 * len(shares) + 2)(self._draw_samples)

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process makes the orders itself."""
        return functools.partial(BatchPlan, **self._arguments), (self.shares,)

    @property
    def batches_per_epoch(self) -> int:
        """How many global batches an epoch has."""
        return self.mixture.batches_per_epoch

    def global_batch(self, epoch: int, position: int) -> GlobalBatch:
        """The batch at ``position`` of ``epoch``."""
        # With natural weights each dataset's own epoch is the epoch of the mixture.
        dataset, given = self.mixture.turn(epoch, position)
        own_epoch, batch = divmod(given, self.cycle[dataset])
        first, last = part(self.shares[dataset].samples, batch, self.cycle[dataset])
        lanes = self._locality.lanes if self._locality is not None else 1
        order: Callable[[np.ndarray], np.ndarray] = self._order(dataset, own_epoch)
        if self._locality is None:
            order = functools.partial(self._neighbours, dataset, own_epoch)
        return GlobalBatch(dataset, own_epoch, first, last - first, lanes, order)

    def _neighbours(self, dataset: int, own_epoch: int, positions: np.ndarray) -> np.ndarray:
        """Samples at a run of positions; those of small batches are drawn together with the next ones."""
        if not len(positions) or len(positions) >= _SAMPLES_AT_ONCE:
            return self._order(dataset, own_epoch)(positions)
        block, start = divmod(int(positions[0]), _SAMPLES_AT_ONCE)
        drawn = self._drawn_samples(dataset, own_epoch, block)
        inside = drawn[start : start + len(positions)]
        if len(inside) == len(positions):
            return inside.copy()
        behind = self._drawn_samples(dataset, own_epoch, block + 1)
        return np.concatenate([inside, behind[: len(positions) - len(inside)]])

    def _draw_samples(self, dataset: int, own_epoch: int, block: int) -> np.ndarray:
        first = block * _SAMPLES_AT_ONCE
        last = min(first + _SAMPLES_AT_ONCE, self.shares[dataset].samples)
        return self._order(dataset, own_epoch)(np.arange(first, last))

    def _make_order(self, dataset: int, own_epoch: int) -> Permutation | LaneOrder:
        share = self.shares[dataset]
        key = (self.seed, "dataset", share.name, own_epoch)
        if self._locality is None:
            return Permutation(share.samples, *key)
        return LaneOrder(np.array(share.shards, np.int64), self._locality, *key)


def part(total: int, number: int, parts: int) -> tuple[int, int]:
    """First and last-plus-one of part ``number`` when ``range(total)`` is cut into ``parts`` nearly equal ones."""
    return number * total // parts, (number + 1) * total // parts


def apportion(total: int, weights: Sequence[float], names: Sequence[str]) -> list[int]:
    """``total`` batches divided by weight, by the method of largest remainders; ties go to the first.

    Raises:
        ConfigError: not one positive finite weight per dataset, or a weight so small that a dataset gets nothing.
    """
    if len(weights) != len(names) or not all(0 < weight < float("inf") for weight in weights):
        raise ConfigError(f"weights {list(weights)}: expected one positive number for each of {', '.join(names)}")
    counts = shares_of_total(total, weights)
    for name, weight, count in zip(names, weights, counts, strict=True):
        if count == 0:
            raise ConfigError(f"{name}: weight {weight} is too small: none of the {total} batches of an epoch is its")
    return counts


def temperature_weights(samples: Sequence[int], temperature: float) -> list[float]:
    """Weights that lie between the natural ones and equal ones: the share of a dataset is its size to the power 1/T.

    Temperature 1 gives weights in proportion to size, a large one makes all datasets equal. The rule is that of
    multilingual pretraining (Conneau and Lample 2019, section 3.1, with alpha = 1/T).

    Raises:
        ConfigError: the temperature is not at least 1.
    """
    if not 1 <= temperature < float("inf"):
        raise ConfigError(f"temperature is {temperature}, expected a number from 1")
    shares = [(count / max(samples)) ** (1 / temperature) for count in samples]
    return [share / sum(shares) for share in shares]
