"""Which batch comes when: the global order of a mixture as a pure function of seed, epoch and batch position.

Within a dataset, its epoch ``e`` is one permutation of its samples, keyed by seed, dataset and ``e``, cut into
``ceil(N / batch_size)`` batches whose sizes differ by at most one: nothing is dropped and no last batch is tiny.
Over the datasets, the order of the batches of an epoch is a permutation of their positions. Nothing here knows of
ranks, readers or shards.
"""

from __future__ import annotations

import functools
import itertools
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data_shards.order import Permutation
from data_shards.support.errors import ConfigError


@dataclass(frozen=True)
class Share:
    """One dataset of a mixture: a name that no other has, and its number of samples."""

    name: str
    samples: int


@dataclass(frozen=True)
class GlobalBatch:
    """The batch of all ranks together.

    Attributes:
        dataset: position of its dataset in the mixture.
        dataset_epoch: the dataset's own epoch, which differs from that of the mixture when weights are given.
        sample_B: indices within the dataset, int64.
    """

    dataset: int
    dataset_epoch: int
    sample_B: np.ndarray


class BatchPlan:
    """The global batches of every epoch.

    Args:
        shares: the datasets.
        batch_size: the largest global batch.
        seed: fixes the order.
        weights: None for natural weights: an epoch shows every sample of every dataset once. Else positive numbers,
            one per dataset: an epoch has as many batches as before, apportioned by weight, and each dataset goes
            through epochs of its own, exactly once per sample each, from one epoch of the mixture into the next.

    Raises:
        ConfigError: a weight, size or name that cannot be used.
    """

    def __init__(
        self, shares: Sequence[Share], *, batch_size: int, seed: int, weights: Sequence[float] | None = None
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}, expected at least 1")
        if not shares:
            raise ConfigError("a stream needs at least one dataset")
        names = [share.name for share in shares]
        if len(set(names)) < len(names):
            raise ConfigError(f"a dataset is given twice: {', '.join(names)}")
        for share in shares:
            if share.samples < 1:
                raise ConfigError(f"{share.name} has no samples")
        self.shares = tuple(shares)
        self.seed = seed
        self.cycle = [-(-share.samples // batch_size) for share in shares]
        self.turns = self.cycle if weights is None else apportion(sum(self.cycle), weights, names)
        self._ends = list(itertools.accumulate(self.turns))
        self._permutation = functools.lru_cache(2 * len(shares) + 2)(Permutation)

    @property
    def batches_per_epoch(self) -> int:
        """How many global batches an epoch has."""
        return self._ends[-1]

    def global_batch(self, epoch: int, position: int) -> GlobalBatch:
        """The batch at ``position`` of ``epoch``."""
        order = self._permutation(self.batches_per_epoch, self.seed, "mixture", epoch)
        drawn = int(order(np.array([position]))[0])
        dataset = bisect_right(self._ends, drawn)
        turn = drawn - (self._ends[dataset] - self.turns[dataset])
        # With natural weights turns == cycle, so the dataset's own epoch is the epoch of the mixture.
        own_epoch, batch = divmod(epoch * self.turns[dataset] + turn, self.cycle[dataset])
        share = self.shares[dataset]
        first, last = part(share.samples, batch, self.cycle[dataset])
        samples = self._permutation(share.samples, self.seed, "dataset", share.name, own_epoch)
        return GlobalBatch(dataset, own_epoch, samples(np.arange(first, last)))


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
    quotas = [total * weight / sum(weights) for weight in weights]
    counts = [int(quota) for quota in quotas]
    by_remainder = sorted(range(len(quotas)), key=lambda place: counts[place] - quotas[place])
    for place in by_remainder[: total - sum(counts)]:
        counts[place] += 1
    for name, weight, count in zip(names, weights, counts, strict=True):
        if count == 0:
            raise ConfigError(f"{name}: weight {weight} is too small: none of the {total} batches of an epoch is its")
    return counts
