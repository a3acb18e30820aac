"""Whose turn it is: which dataset of a mixture gives the batch of a step, by fixed shares or by a schedule of them."""

from __future__ import annotations

import functools
import itertools
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data_shards.order.permutation import Permutation
from data_shards.support.errors import ConfigError

_TURNS_AT_ONCE = 256


@dataclass(frozen=True)
class Stage:
    """A part of a curriculum.

    Attributes:
        first: the step that it begins with, from 0; it lasts to that of the next one, the last without end.
        weights: share of each dataset; 0 leaves it out.
    """

    first: int
    weights: tuple[float, ...]


@dataclass(frozen=True)
class Round:
    """Neighbouring steps among which the datasets have their shares, in an order of its own.

    Attributes:
        steps: how many.
        key: of their order.
        counts: batches of each dataset.
        before: batches that each has given in all steps before.
    """

    steps: int
    key: tuple[str, int]
    counts: tuple[int, ...]
    before: tuple[int, ...]


class Mixture:
    """The turns of the datasets as a function of the step.

    Without a curriculum a round is an epoch. With one, each stage is cut into rounds as long as an epoch, the last of
    which may be shorter. Shares are exact in every round, by the method of largest remainders.

    Args:
        names: of the datasets.
        turns: batches of each in an epoch.
        seed: fixes the order.
        stages: the curriculum; None for the same shares in every epoch.

    Raises:
        ConfigError: stages that cannot be followed.
    """

    def __init__(
        self, names: Sequence[str], turns: Sequence[int], seed: int, stages: Sequence[Stage] | None = None
    ) -> None:
        self._names, self._turns, self._seed = tuple(names), tuple(turns), seed
        self.batches_per_epoch = sum(turns)
        self.stages = tuple(stages or ())
        self._begun = self._given_before() if stages else []
        self._round = functools.lru_cache(4)(self._make_round)
        self._drawn = functools.lru_cache(4)(self._draw)

    def turn(self, epoch: int, position: int) -> tuple[int, int]:
        """The dataset at ``position`` of ``epoch``, and how many batches it has given before."""
        found, place = self._place(epoch, position)
        block, within = divmod(place, _TURNS_AT_ONCE)
        drawn = int(self._drawn(found, block)[within])
        ends = list(itertools.accumulate(found.counts))
        dataset = bisect_right(ends, drawn)
        return dataset, found.before[dataset] + drawn - (ends[dataset] - found.counts[dataset])

    def _place(self, epoch: int, position: int) -> tuple[Round, int]:
        length = self.batches_per_epoch
        if not self.stages:
            before = tuple(epoch * count for count in self._turns)
            return Round(length, ("mixture", epoch), self._turns, before), position
        step = epoch * length + position
        stage = bisect_right([each.first for each in self.stages], step) - 1
        number, place = divmod(step - self.stages[stage].first, length)
        return self._round(stage, number), place

    def _make_round(self, stage: int, number: int) -> Round:
        length, here = self.batches_per_epoch, self.stages[stage]
        first = here.first + number * length
        last = self.stages[stage + 1].first if stage + 1 < len(self.stages) else first + length
        full = shares(length, here.weights)
        before = [given + number * count for given, count in zip(self._begun[stage], full, strict=True)]
        steps = min(length, last - first)
        return Round(steps, ("curriculum", first), tuple(shares(steps, here.weights)), tuple(before))

    def _given_before(self) -> list[list[int]]:
        """Batches of each dataset in all stages before each."""
        firsts = [stage.first for stage in self.stages]
        if firsts[0] != 0 or any(later <= earlier for earlier, later in itertools.pairwise(firsts)):
            raise ConfigError(f"stages begin at steps {firsts}; expected 0, and each after the one before")
        for number, stage in enumerate(self.stages):
            _check(stage.weights, self._names, number)
        begun = [[0] * len(self._names)]
        for number, (stage, following) in enumerate(itertools.pairwise(self.stages)):
            rounds, rest = divmod(following.first - stage.first, self.batches_per_epoch)
            parts = zip(shares(self.batches_per_epoch, stage.weights), shares(rest, stage.weights), strict=True)
            given = [rounds * whole + last for whole, last in parts]
            for name, weight, count in zip(self._names, stage.weights, given, strict=True):
                if weight and not count:
                    raise ConfigError(
                        f"{name}: weight {weight} of stage {number + 1} is too small: none of its "
                        f"{following.first - stage.first} batches is of it"
                    )
            begun.append([before + count for before, count in zip(begun[-1], given, strict=True)])
        return begun

    def _draw(self, of: Round, block: int) -> np.ndarray:
        """Whose turn it is at some neighbouring positions; for a single one the permutation would take as long."""
        order = Permutation(of.steps, self._seed, *of.key)
        first = block * _TURNS_AT_ONCE
        return order(np.arange(first, min(first + _TURNS_AT_ONCE, of.steps)))


def shares(total: int, weights: Sequence[float]) -> list[int]:
    """``total`` divided by weight, by the method of largest remainders; ties go to the first."""
    quotas = [total * weight / sum(weights) for weight in weights]
    counts = [int(quota) for quota in quotas]
    by_remainder = sorted(range(len(quotas)), key=lambda place: counts[place] - quotas[place])
    for place in by_remainder[: total - sum(counts)]:
        counts[place] += 1
    return counts


def _check(weights: Sequence[float], names: Sequence[str], number: int) -> None:
    if len(weights) != len(names) or not all(0 <= weight < float("inf") for weight in weights) or not any(weights):
        raise ConfigError(
            f"stage {number + 1} has weights {list(weights)}: expected one number from 0 for each of "
            f"{', '.join(names)}, and one above 0"
        )
