"""The best subset of strides by a score: among all where these are few, else by leaving out one after the other."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import product

import numpy as np

MOST_TRIED = 10
"""Of so many strides all subsets are tried, 1023."""

Score = Callable[[np.ndarray], np.ndarray]
"""Of subsets, bool ``(M, K)``, to a number each, ``(M,)``; the lowest is the best."""
Allowed = Callable[[np.ndarray], np.ndarray]
"""Of subsets to whether each may be taken."""


def best_subset(count: int, score: Score, allowed: Allowed) -> np.ndarray:
    """The subset of ``count`` strides with the lowest score that is allowed, bool ``(K,)``; all where none is.

    Of equal scores the larger subset is taken. With more strides than :data:`MOST_TRIED` the search begins with all,
    leaves out the one without which the score is lowest, and so on: the best of those that it passes.
    """
    masks_MK = all_subsets(count) if count <= MOST_TRIED else _passed(count, score)
    masks_MK = masks_MK[allowed(masks_MK)]
    if not len(masks_MK):
        return np.ones(count, dtype=bool)
    found: np.ndarray = masks_MK[int(np.argmin(score(masks_MK)))]
    return found


@lru_cache(maxsize=MOST_TRIED)
def all_subsets(count: int) -> np.ndarray:
    """Every subset but the empty one, the largest first."""
    masks = np.array(list(product([True, False], repeat=count)), dtype=bool)[:-1]
    return masks[np.argsort(-masks.sum(axis=1), kind="stable")]


def _passed(count: int, score: Score) -> np.ndarray:
    mask = np.ones(count, dtype=bool)
    passed = [mask]
    while mask.sum() > 1:
        left = np.flatnonzero(mask)
        without = np.repeat(mask[None], len(left), axis=0)
        without[np.arange(len(left)), left] = False
        mask = without[int(np.argmin(score(without)))]
        passed.append(mask)
    return np.stack(passed)


def random_subset(size_K: np.ndarray, least: int, most: int, generator: np.random.Generator) -> np.ndarray:
    """A number of strides that give ``least`` to ``most`` cases, then so many, each equally likely; bool ``(K,)``."""
    order = generator.permutation(len(size_K))
    cases = np.cumsum(size_K[order])
    fitting = np.flatnonzero((cases >= least) & (cases <= most))
    mask = np.ones(len(order), dtype=bool)
    if len(fitting):
        mask[order[int(generator.choice(fitting)) + 1 :]] = False
    return mask


def random_subsets(count: int, size_K: np.ndarray, least: int, most: int, generator: np.random.Generator) -> np.ndarray:
    """Different subsets as of :func:`random_subset`, bool ``(M, K)``: ``count``, or fewer where few more are found."""
    found: dict[bytes, np.ndarray] = {}
    for _ in range(_TRIES * count):
        mask = random_subset(size_K, least, most, generator)
        found.setdefault(mask.tobytes(), mask)
        if len(found) == count:
            break
    return np.stack(list(found.values()))


_TRIES = 4
"""Draws for each subset, some of which repeat others."""
