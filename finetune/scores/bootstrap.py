"""How far a score could have come out otherwise with other test subjects: a bootstrap of subjects.

Images of one subject resemble each other, so what is drawn again is the subject, with all of its images (the cluster
bootstrap: Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8). An image without a subject
is its own. Subjects are drawn among those of their class, so every replicate has every class and AUC stays defined on
small sets; a subject with images of several classes is drawn among those of the rarest of them. One who would be alone
in that is drawn among those who share a class with it.

From the replicates the standard error is taken, not the percentiles: percentile intervals of few subjects are too
short, and too far from 1 where the score is near 1 (in the simulation of ``tests/finetune/test_bootstrap.py`` they
cover 89 to 93 % where 95 % is meant). Three things put that right:

- of a class of ``n`` subjects ``n - 1`` are drawn, which makes the variance unbiased (Rao and Wu, Resampling inference
  with complex survey data, JASA 83, 1988);
- Student's t takes the place of the normal quantile. For a difference of means over classes its degrees of freedom are
  those of the scarcest class (the conservative rule for two samples, ``min(n, m) - 1``), else those of all subjects;
- a score that lies in [0, 1] has an interval symmetric in its logit (Pepe, The Statistical Evaluation of Medical Tests,
  2003, chapter 5); that of any other score is symmetric and cut at what
  the score can be, and that of a difference of scores is symmetric.

Numbers have no classes: their subjects are drawn among all.

There is no interval, NaN, where nothing shows how far subjects differ: a class has a single subject, or the score (or
the difference) comes out the same whoever is drawn. Only a score of 0 or 1 then has an exact one, see :func:`interval`.

The interval speaks of the test subjects only; it does not hold the spread over training seeds or label draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit
from scipy.stats import t

from data_shards.vocabulary import Task
from finetune.scores.metrics import SHARE, Score, accuracy
from finetune.scores.numbers import absolute_error, absolute_error_of_classes
from finetune.splits import strata

REPLICATES = 1000
LEVEL = 0.95
_CHUNK_BYTES = 64 << 20
_ROUNDING = 1e-9
"""Scores nearer than this to 0 or 1 are 0 or 1, and replicates that spread by less than this do not spread."""
_ERRORS: tuple[Score, ...] = (absolute_error, absolute_error_of_classes)
"""Scores in units of their own, of which the rounding is a share."""
_MEANS: tuple[Score, ...] = (accuracy, *_ERRORS)
"""Scores that are a mean over all cases, whatever their class."""


@dataclass(frozen=True)
class Interval:
    """A score, or a difference of scores, with its interval over test subjects; NaN where it is not defined."""

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
    subjects: np.ndarray | None = None,
    replicates: int = REPLICATES,
    level: float = LEVEL,
    limits: tuple[float, float] = SHARE,
) -> Interval:
    """The interval of one score.

    A score of 0 or 1 is the same in every replicate. Its interval is the exact one of a proportion (Clopper and
    Pearson, Biometrika 26, 1934): of as many trials as there are subjects for the accuracy, else, and where a class has
    a single subject, as the scarcest class has. Any other score has none, NaN, where a class has a single subject or no
    replicate differs: four subjects with half of their images right each do not show that a fifth has, too.

    Args:
        score: a function of :mod:`finetune.scores.metrics` or :mod:`finetune.scores.numbers`.
        labels: as that function takes them.
        scores: as that function takes them; ``(S, N, K)`` of predictions that were made several times, as by the
            repeats of a cross-validation, for the mean of their scores.
        task: how the labels are to be read.
        seed: fixes the resampled subjects.
        subjects: the subject of each image; each image is its own when left out.
        replicates: number of bootstrap replicates.
        level: coverage aimed at.
        limits: what the score can be at least and at most. Other than of a share, the interval is symmetric and cut
            there: beyond them the score cannot be, so no coverage is lost.
    """
    estimate = float(_value(score, labels, scores, task, None))
    sampling = Resampling(labels, task, subjects)
    draws_R = sampling.draws(lambda counts_RN: _value(score, labels, scores, task, counts_RN), seed, replicates)
    error = _standard_error(draws_R, estimate if score in _ERRORS else 1.0)
    if limits != SHARE:
        half = sampling.quantile(level, score, paired=False) * error
        low, high = (float(np.clip(estimate + sign * half, *limits)) for sign in (-1, 1))
    elif min(estimate, 1 - estimate) < _ROUNDING:
        bound = ((1 - level) / 2) ** (1 / sampling.trials(score))
        low, high = (bound, 1.0) if estimate > 0.5 else (0.0, 1 - bound)
    else:
        half = sampling.quantile(level, score, paired=False) * error / (estimate * (1 - estimate))
        low, high = (float(expit(logit(estimate) + sign * half)) for sign in (-1, 1))
    return Interval(estimate, low, high, level, len(draws_R), seed)


def paired_difference(
    score: Score,
    labels: np.ndarray,
    scores: np.ndarray,
    baseline: np.ndarray,
    task: Task,
    *,
    seed: int,
    subjects: np.ndarray | None = None,
    replicates: int = REPLICATES,
    level: float = LEVEL,
) -> Interval:
    """The interval of ``scores`` minus ``baseline``, both on the same resampled subjects.

    It is NaN where a class has a single subject or no replicate differs: that two models are equal, or a constant
    apart, on the subjects there are does not show that they are on others.

    Args: as for :func:`interval`; ``baseline`` are the other model's scores on the same images.
    """
    first, second = (float(_value(score, labels, each, task, None)) for each in (scores, baseline))
    estimate = first - second
    sampling = Resampling(labels, task, subjects)
    draws_R = sampling.draws(
        lambda counts_RN: (
            _value(score, labels, scores, task, counts_RN) - _value(score, labels, baseline, task, counts_RN)
        ),
        seed,
        replicates,
    )
    error = _standard_error(draws_R, max(first, second) if score in _ERRORS else 1.0)
    half = sampling.quantile(level, score, paired=True) * error
    return Interval(estimate, estimate - half, estimate + half, level, len(draws_R), seed)


def _value(score: Score, labels: np.ndarray, scores: np.ndarray, task: Task, counts: np.ndarray | None) -> np.ndarray:
    """The score; of predictions that were made several times, ``(S, N, K)``, the mean over them."""
    if scores.ndim < 3:
        return score(labels, scores, task, counts)
    mean: np.ndarray = np.mean([score(labels, each_NK, task, counts) for each_NK in scores], axis=0)
    return mean


class Resampling:
    """Which subjects are drawn among each other.

    Args:
        labels: ``(N,)`` or ``(N, L)``.
        task: how the labels are to be read.
        subjects: ``(N,)``; each image is its own when left out.

    Attributes:
        subjects: how many there are.
        scarcest: how many the class has that has the fewest.
    """

    def __init__(self, labels: np.ndarray, task: Task, subjects: np.ndarray | None) -> None:
        strata_N = strata(labels, task)
        self._subject_N = _in_order_of_appearance(np.arange(len(strata_N)) if subjects is None else subjects)
        self.subjects = int(self._subject_N.max()) + 1
        names, frequency = np.unique(strata_N, return_counts=True)
        self.scarcest = min(len(np.unique(self._subject_N[strata_N == name])) for name in names)
        # Written from the most to the least frequent, so that the rarest stratum of a subject stays.
        stratum_S = np.empty(self.subjects, dtype=np.int64)
        for name in names[np.argsort(-frequency, kind="stable")]:
            stratum_S[self._subject_N[strata_N == name]] = name
        # Alone in its stratum, a subject would never be drawn; others may have images of that class, in rarer strata.
        for name in names:
            if np.count_nonzero(stratum_S == name) == 1:
                sharing = np.unique(self._subject_N[strata_N == name])
                others = stratum_S[sharing[stratum_S[sharing] != name]]
                if len(others):
                    stratum_S[stratum_S == name] = np.bincount(others).argmax()
        self._members = [np.flatnonzero(stratum_S == name) for name in np.unique(stratum_S)]

    def trials(self, score: Score) -> int:
        """How many subjects a score rests on: of the scarcest class; all for accuracy, unless a class has just one."""
        return self.subjects if score is accuracy and self.scarcest > 1 else self.scarcest

    def quantile(self, level: float, score: Score, *, paired: bool) -> float:
        """The quantile of Student's t; NaN where the only subject of a class does not show how far subjects differ."""
        degrees = self.subjects - len(self._members)
        if self.scarcest < 2 or (paired and score not in _MEANS):
            degrees = self.scarcest - 1
        return float(t.ppf(0.5 + level / 2, degrees))

    def draws(self, evaluate: Callable[[np.ndarray], np.ndarray], seed: int, replicates: int) -> np.ndarray:
        """The score of every replicate, over chunks of replicates to bound the memory; where it is defined.

        A label that is nobody's rarest can vanish from a multi-label replicate, and a class from one whose subjects
        have several; that replicate has no AUC and drops out.

        Args:
            evaluate: takes how often each image counts, ``(R, N)``, and gives ``(R,)``.
            seed: fixes the subjects drawn.
            replicates: how many.
        """
        draws_R = np.concatenate([evaluate(counts_RN) for counts_RN in self.counts(seed, replicates)])
        defined: np.ndarray = draws_R[np.isfinite(draws_R)]
        return defined

    def counts(self, seed: int, replicates: int) -> Iterator[np.ndarray]:
        """How often each image counts in each replicate, ``(R, N)``, over chunks of replicates.

        Args: as for :meth:`draws`.
        """
        generator = np.random.default_rng(seed)
        chunk = max(1, _CHUNK_BYTES // (8 * len(self._subject_N)))
        for start in range(0, replicates, chunk):
            counts_RS = np.ones((min(chunk, replicates - start), self.subjects))
            for member_M in self._members:
                if len(member_M) > 1:
                    counts_RS[:, member_M] = _counts(generator, len(counts_RS), len(member_M))
            yield counts_RS[:, self._subject_N]


def _counts(generator: np.random.Generator, replicates: int, members: int) -> np.ndarray:
    """How often each of ``members`` counts, ``(R, M)``: ``M - 1`` are drawn, and count so much more that they are M."""
    drawn_RM = generator.integers(members, size=(replicates, members - 1))
    rows_R1 = np.arange(replicates)[:, None] * members
    tally = np.bincount((drawn_RM + rows_R1).ravel(), minlength=replicates * members)
    counts_RM: np.ndarray = tally.reshape(replicates, members) * (members / (members - 1))
    return counts_RM


def _in_order_of_appearance(subjects: np.ndarray) -> np.ndarray:
    """Numbers of the subjects, 0, 1, ... as they appear; so subjects that are all different give 0 to N - 1."""
    _, first, index_N = np.unique(subjects, return_index=True, return_inverse=True)
    number_S = np.empty(len(first), dtype=np.int64)
    number_S[np.argsort(first)] = np.arange(len(first))
    number_N: np.ndarray = number_S[index_N]
    return number_N


def _standard_error(draws_R: np.ndarray, unit: float) -> float:
    """NaN without spread beyond the rounding of ``unit``, which would be certainty."""
    error = float(draws_R.std()) if len(draws_R) else 0.0
    return error if error > _ROUNDING * unit else float("nan")
