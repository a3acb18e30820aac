from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest

from data_shards.order.permutation import Permutation


def test_every_size_up_to_300_is_a_bijection() -> None:
    for size in range(1, 301):
        for seed in range(2):
            assert sorted(Permutation(size, seed)(np.arange(size)).tolist()) == list(range(size)), size


@pytest.mark.parametrize("size", [1023, 1024, 1025, 4097, 65_536, 65_537, 999_983])
def test_large_sizes_around_squares_and_primes_are_bijections(size: int) -> None:
    counts = np.bincount(Permutation(size, 5, "large")(np.arange(size)), minlength=size)
    assert counts.shape == (size,) and (counts == 1).all()


@pytest.mark.parametrize("size", [10**9, 10**12, 1 << 62])
def test_a_position_of_a_huge_range_is_found_without_the_others(size: int) -> None:
    positions = np.array([0, 1, size // 2, size - 1])
    images = Permutation(size, 1)(positions)
    assert len(set(images.tolist())) == 4 and images.min() >= 0 and images.max() < size
    assert Permutation(size, 1)(positions[2:3]) == images[2]


@pytest.mark.parametrize("size, seeds", [(2, 1000), (3, 1500), (4, 2400), (5, 3600), (6, 7200)])
def test_over_seeds_every_order_of_a_few_is_equally_likely(size: int, seeds: int) -> None:
    found = Counter(tuple(Permutation(size, seed)(np.arange(size)).tolist()) for seed in range(seeds))
    orders = list(itertools.permutations(range(size)))
    expected = seeds / len(orders)
    statistic = sum((found[order] - expected) ** 2 / expected for order in orders)
    freedom = len(orders) - 1
    assert abs(statistic - freedom) < 4.5 * (2 * freedom) ** 0.5  # mean and deviation of chi-square


@pytest.mark.parametrize("size", [546, 1023, 1024, 4708, 10**6])
def test_neighbours_are_scattered_independently(size: int) -> None:
    bins, positions = 16, np.arange(min(size, 1000))
    pairs = np.zeros((bins, bins))
    for seed in range(200):
        place = Permutation(size, seed)(positions) * bins // size
        np.add.at(pairs, (place[:-1], place[1:]), 1)
    expected = pairs.sum() / bins**2
    statistic = ((pairs - expected) ** 2 / expected).sum()
    freedom = bins**2 - 1
    assert abs(statistic - freedom) < 5 * (2 * freedom) ** 0.5


def test_parts_of_the_key_are_kept_apart() -> None:
    positions = np.arange(100)
    assert (Permutation(100, "a", 12)(positions) != Permutation(100, "a1", 2)(positions)).any()


def test_order_is_pinned_so_that_old_checkpoints_resume() -> None:
    assert Permutation(10, 0, "toy", 0)(np.arange(10)).tolist() == [8, 3, 1, 9, 4, 5, 6, 0, 2, 7]
    assert Permutation(10**9, 0, "toy", 0)(np.arange(4)).tolist() == [591218552, 642146123, 791379496, 594252684]


def test_positions_outside_are_refused() -> None:
    with pytest.raises(IndexError):
        Permutation(5)(np.array([5]))
    with pytest.raises(IndexError):
        Permutation(5)(np.array([-1]))
