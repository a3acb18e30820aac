"""The best subset of strides by a score: among all where these are few, else by leaving out one after the other.

Shapes: ``L`` layers, ``K`` strides, ``M`` subsets. All layers are searched at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np

MOST_TRIED = 8
"""Of so many strides all subsets are tried, 255."""


@dataclass(frozen=True)
class Sums:
    """What is known of subsets of the gradients of a layer; arrays of one shape, or that broadcast to it.

    Attributes:
        strides: how many strides each has.
        cases: how many cases.
        squared_sum: squared norm of the sum of the gradients of its cases.
        squares: the sum over its strides of cases times the squared norm of their mean gradient.
    """

    strides: np.ndarray
    cases: np.ndarray
    squared_sum: np.ndarray
    squares: np.ndarray


Score = Callable[[Sums], np.ndarray]
"""Of subsets to a number each; the lowest is the best."""


def best_subsets(gram_LKK: np.ndarray, size_K: np.ndarray, score: Score, least: int, most: int) -> np.ndarray:
    """The subset of strides with the lowest score for each layer, bool ``(L, K)``.

    Of equal scores the larger subset is taken. With more strides than :data:`MOST_TRIED` the search begins with all,
    leaves out the one without which the score is lowest, and so on: the best of those that it passes.

    Args:
        gram_LKK: inner products of the sums over the cases of each stride.
        size_K: cases of each stride.
        score: of subsets.
        least: fewest cases of a subset.
        most: most cases of a subset; all are taken where no subset has so many.
    """
    search = _all if len(size_K) <= MOST_TRIED else _leaving_out
    return search(gram_LKK, size_K, score, least, most)


def _all(gram_LKK: np.ndarray, size_K: np.ndarray, score: Score, least: int, most: int) -> np.ndarray:
    masks_MK = all_subsets(len(size_K))
    weights_MK = masks_MK.astype(np.float64)
    cases_M = weights_MK @ size_K
    squares_LK = np.diagonal(gram_LKK, axis1=1, axis2=2) / size_K
    squared_sum_LM = ((weights_MK @ gram_LKK) * weights_MK).sum(axis=-1)
    sums = Sums(weights_MK.sum(axis=1), cases_M, squared_sum_LM, squares_LK @ weights_MK.T)
    allowed_M = (cases_M >= least) & (cases_M <= most)
    if not allowed_M.any():
        return np.ones(gram_LKK.shape[:2], dtype=bool)
    found: np.ndarray = masks_MK[np.where(allowed_M, score(sums), np.inf).argmin(axis=1)]
    return found


@lru_cache(maxsize=MOST_TRIED)
def all_subsets(count: int) -> np.ndarray:
    """Every subset but the empty one, bool ``(M, K)``, the largest first."""
    masks = np.array(list(product([True, False], repeat=count)), dtype=bool)[:-1]
    return masks[np.argsort(-masks.sum(axis=1), kind="stable")]


def _leaving_out(gram_LKK: np.ndarray, size_K: np.ndarray, score: Score, least: int, most: int) -> np.ndarray:
    layers, count = gram_LKK.shape[:2]
    every = np.arange(layers)
    norms_LK = np.diagonal(gram_LKK, axis1=1, axis2=2)
    squares_LK = norms_LK / size_K
    # Of what is left, with the first axis kept for broadcasting.
    left_LK = np.ones((layers, count), dtype=bool)
    towards_LK, squares_L1 = gram_LKK.sum(axis=2), squares_LK.sum(axis=1, keepdims=True)
    total_L1 = towards_LK.sum(axis=1, keepdims=True)
    cases_L1 = np.full((layers, 1), float(size_K.sum()))
    score_L = score(Sums(np.full((layers, 1), count), cases_L1, total_L1, squares_L1))[:, 0]
    best_LK, best_L = left_LK.copy(), np.where(size_K.sum() <= most, score_L, np.inf)
    for number in range(count - 1, 0, -1):
        cases_LK = np.maximum(cases_L1 - size_K, 1)  # of what has gone already, whatever
        total_LK = total_L1 - 2 * towards_LK + norms_LK
        without_LK = squares_L1 - squares_LK
        scores_LK = score(Sums(np.full((1, 1), number), cases_LK, total_LK, without_LK))
        # One stride may have no score, as it has no variance: any that is left is better than one that has gone.
        gone_L = np.where(left_LK, np.minimum(scores_LK, _MOST), np.inf).argmin(axis=1)
        left_LK[every, gone_L] = False
        score_L, cases_L = scores_LK[every, gone_L], cases_LK[every, gone_L]
        better_L = (score_L < best_L) & (cases_L >= least) & (cases_L <= most)
        best_L[better_L], best_LK[better_L] = score_L[better_L], left_LK[better_L]
        if cases_L.max() < least:
            break
        total_L1, squares_L1 = total_LK[every, gone_L][:, None], without_LK[every, gone_L][:, None]
        cases_L1 = cases_L[:, None]
        towards_LK = towards_LK - gram_LKK[every, gone_L]
    return best_LK


_MOST = float(np.finfo(np.float64).max)


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
