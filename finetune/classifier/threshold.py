"""The operating point of a binary target: above which probability a case counts as the second class.

It is chosen on predictions of cases that the predicting model did not see, such as those out of the folds of a
cross-validation. Sensitivity and specificity on those same cases flatter it, the more the fewer they are; those of
other cases do not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from scipy.stats import binomtest

from data_shards.support.errors import ConfigError, DataError
from data_shards.vocabulary import Task
from finetune.scores.bootstrap import LEVEL, REPLICATES, Interval, interval
from finetune.scores.metrics import accuracy, aligned

_ROUNDING = 1e-9


@dataclass(frozen=True)
class OperatingPoint:
    """Where a case counts as the second class.

    Attributes:
        threshold: its probability is above this.
        rule: how it was chosen, in words.
        sensitivity: share of the cases of the second class that are above it, where it was chosen.
        specificity: share of the cases of the first class that are not, there.
        cases: how many cases it was chosen on, of the first and of the second class.
    """

    threshold: float
    rule: str
    sensitivity: float
    specificity: float
    cases: tuple[int, int]

    def decide(self, probabilities_N2: np.ndarray) -> np.ndarray:
        """The class of each case, int64 ``(N, 1)``."""
        return (probabilities_N2[:, 1:] > self.threshold).astype(np.int64)

    def state(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {**asdict(self), "cases": list(self.cases)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Read back what :meth:`state` gave.

        Raises:
            TypeError: something is missing or unknown.
        """
        return cls(**{**state, "cases": tuple(state["cases"])})


def operating_point(
    labels: np.ndarray, probabilities: np.ndarray, *, sensitivity: float | None = None, specificity: float | None = None
) -> OperatingPoint:
    """The threshold that separates held-out cases best, or that reaches what is wanted.

    Best is the largest sum of sensitivity and specificity (Youden, Index for rating diagnostic tests, Cancer 3, 1950);
    of equal ones the most sensitive. A wanted sensitivity takes the highest threshold that reaches it, a wanted
    specificity the lowest. Thresholds lie half-way between neighbouring probabilities. Every case weighs the same, as
    it does in the scores.

    Args:
        labels: ``(N,)`` or ``(N, 1)``, 0 or 1.
        probabilities: of the second class, ``(N,)``, or of both, ``(N, 2)``.
        sensitivity: at least this.
        specificity: at least this; one of the two.

    Raises:
        ConfigError: both are wanted, or one is not in (0, 1].
        DataError: labels and probabilities do not fit together, or a class has no case.
    """
    wanted = sensitivity if specificity is None else specificity
    if sensitivity is not None and specificity is not None:
        raise ConfigError("a threshold can be chosen for a sensitivity or for a specificity, not for both")
    if wanted is not None and not 0 < wanted <= 1:
        raise ConfigError(
            f"the wanted {'specificity' if sensitivity is None else 'sensitivity'} is {wanted}: not in (0, 1]"
        )
    truth_N, score_N = _columns(labels, probabilities)
    positives, negatives = np.sort(score_N[truth_N]), np.sort(score_N[~truth_N])
    if not len(positives) or not len(negatives):
        raise DataError("a threshold needs cases of both classes")
    values = np.unique(score_N)
    below = values[0] / 2 if values[0] > 0 else -1.0
    above = (1 + values[-1]) / 2
    threshold_T = np.concatenate([[below], (values[:-1] + values[1:]) / 2, [above]])
    found_T = 1 - np.searchsorted(positives, threshold_T, side="right") / len(positives)
    spared_T = np.searchsorted(negatives, threshold_T, side="right") / len(negatives)
    if sensitivity is not None:
        at, rule = int(np.flatnonzero(found_T >= sensitivity - _ROUNDING)[-1]), f"sensitivity at least {sensitivity:g}"
    elif specificity is not None:
        at, rule = int(np.flatnonzero(spared_T >= specificity - _ROUNDING)[0]), f"specificity at least {specificity:g}"
    else:
        index_T = found_T + spared_T
        at, rule = int(np.flatnonzero(index_T >= index_T.max() - _ROUNDING)[0]), "largest sensitivity plus specificity"
    return OperatingPoint(
        float(threshold_T[at]), rule, float(found_T[at]), float(spared_T[at]), (len(negatives), len(positives))
    )


def sensitivity_specificity(
    labels: np.ndarray,
    probabilities: np.ndarray,
    threshold: float,
    *,
    seed: int,
    subjects: np.ndarray | None = None,
    replicates: int = REPLICATES,
    level: float = LEVEL,
) -> tuple[Interval, Interval]:
    """Both shares with their intervals.

    Where every case is a subject of its own they are exact (Clopper and Pearson, Biometrika 26, 1934; 0 replicates).
    Else subjects are drawn again as in :mod:`finetune.scores.bootstrap`, among those with cases of the class; NaN where
    these do not show how far subjects differ.

    Args:
        labels: ``(N,)`` or ``(N, 1)``, 0 or 1.
        probabilities: of the second class, ``(N,)``, or of both, ``(N, 2)``.
        threshold: above it a case counts as the second class.
        seed: fixes the resampled subjects.
        subjects: the subject of each case; each case is its own when left out.
        replicates: number of bootstrap replicates.
        level: coverage aimed at.

    Raises:
        DataError: labels and probabilities do not fit together, or a class has no case.
    """
    truth_N, score_N = _columns(labels, probabilities)
    right_N = (score_N > threshold) == truth_N
    shares = []
    for of_N, name in ((truth_N, "second"), (~truth_N, "first")):
        if not of_N.any():
            raise DataError(f"no case of the {name} class")
        subject_M = None if subjects is None else np.asarray(subjects)[of_N]
        shares.append(share(right_N[of_N], seed=seed, subjects=subject_M, replicates=replicates, level=level))
    return shares[0], shares[1]


def share(
    right_N: np.ndarray,
    *,
    seed: int,
    subjects: np.ndarray | None = None,
    replicates: int = REPLICATES,
    level: float = LEVEL,
) -> Interval:
    """A share of cases with its interval, exact or by subject as those of :func:`sensitivity_specificity`.

    Args:
        right_N: bool, at least one.
        seed: fixes the resampled subjects.
        subjects: the subject of each case; each case is its own when left out.
        replicates: number of bootstrap replicates.
        level: coverage aimed at.
    """
    if subjects is None or len(np.unique(subjects)) == len(right_N):
        low, high = binomtest(int(right_N.sum()), len(right_N)).proportion_ci(level, method="exact")
        return Interval(float(right_N.mean()), float(low), float(high), level, 0, seed)
    # The share that is right is the accuracy of a task in which being right is the one class there is.
    ones_N = np.ones(len(right_N), np.int64)
    return interval(
        accuracy, ones_N, right_N.astype(np.float64), Task.binary,
        seed=seed, subjects=subjects, replicates=replicates, level=level,
    )  # fmt: skip


def _columns(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    labels_NL, scores_NK = aligned(labels, probabilities, Task.binary)
    return labels_NL[:, 0] == 1, scores_NK[:, -1]
