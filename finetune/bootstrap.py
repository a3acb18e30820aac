"""How far a score could have come out otherwise with other test images: stratified percentile bootstrap.

The images of each class are resampled among themselves, so every replicate has every class in its own proportion and
AUC stays defined on small sets (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 8 and 13).
The interval speaks of the test images only; it does not hold the spread over training seeds or label draws.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from data_shards.vocabulary import Task
from finetune.splits import strata

Score = Callable[[np.ndarray, np.ndarray, Task, np.ndarray | None], np.ndarray]

REPLICATES = 1000
LEVEL = 0.95
_CHUNK_BYTES = 64 << 20


@dataclass(frozen=True)
class Interval:
    """A score, or a difference of scores, with its percentile interval over test images."""

    estimate: float
    low: float
    high: float
    level: float
    replicates: int
    seed: int


def interval(
    score: Score,
    labels: np.ndarray,
    scores: np.ndarray,
    task: Task,
    *,
    seed: int,
    replicates: int = REPLICATES,
    level: float = LEVEL,
) -> Interval:
    """The percentile interval of one score.

    Args:
        score: a function of :mod:`finetune.metrics`.
        labels: as that function takes them.
        scores: as that function takes them.
        task: how the labels are to be read.
        seed: fixes the resampled images.
        replicates: number of bootstrap replicates.
        level: coverage aimed at.
    """
    estimate = float(score(labels, scores, task, None))
    draws_R = _replicated(lambda counts_RN: score(labels, scores, task, counts_RN), labels, task, seed, replicates)
    return _percentiles(estimate, draws_R, level, seed)


def paired_difference(
    score: Score,
    labels: np.ndarray,
    scores: np.ndarray,
    baseline: np.ndarray,
    task: Task,
    *,
    seed: int,
    replicates: int = REPLICATES,
    level: float = LEVEL,
) -> Interval:
    """The percentile interval of ``scores`` minus ``baseline``, both on the same resampled images.

    Args: as for :func:`interval`; ``baseline`` are the other model's scores on the same images.
    """
    estimate = float(score(labels, scores, task, None)) - float(score(labels, baseline, task, None))
    draws_R = _replicated(
        lambda counts_RN: score(labels, scores, task, counts_RN) - score(labels, baseline, task, counts_RN),
        labels,
        task,
        seed,
        replicates,
    )
    return _percentiles(estimate, draws_R, level, seed)


def _replicated(
    evaluate: Callable[[np.ndarray], np.ndarray], labels: np.ndarray, task: Task, seed: int, replicates: int
) -> np.ndarray:
    """The score of every replicate, computed over chunks of replicates to bound the memory."""
    generator = np.random.default_rng(seed)
    groups = strata(labels, task)
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    chunk = max(1, _CHUNK_BYTES // (8 * len(groups)))
    parts = []
    for start in range(0, replicates, chunk):
        counts_RN = np.zeros((min(chunk, replicates - start), len(groups)), dtype=np.int64)
        for member_M in members:
            drawn_RM = generator.integers(len(member_M), size=(len(counts_RN), len(member_M)))
            rows_RM = np.arange(len(counts_RN))[:, None] * len(member_M)
            tally = np.bincount((drawn_RM + rows_RM).ravel(), minlength=drawn_RM.size)
            counts_RN[:, member_M] = tally.reshape(drawn_RM.shape)
        parts.append(evaluate(counts_RN))
    return np.concatenate(parts)


def _percentiles(estimate: float, draws_R: np.ndarray, level: float, seed: int) -> Interval:
    tail = (1 - level) / 2
    # A label that is nobody's rarest can vanish from a multi-label replicate; that replicate has no AUC and drops out.
    defined_R = draws_R[np.isfinite(draws_R)]
    low, high = np.quantile(defined_R, [tail, 1 - tail]) if len(defined_R) else (np.nan, np.nan)
    return Interval(estimate, float(low), float(high), level, len(defined_R), seed)
