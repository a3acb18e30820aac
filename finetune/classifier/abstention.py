"""When to give no answer: a set that does not hold the decision alone, or a decision that is not sure enough.

The second is a threshold on the probability of the decision (Chow, On optimum recognition error and reject tradeoff,
IEEE Transactions on Information Theory 16, 1970). The one that just reaches a wanted error on held-out cases is picked
among many by its luck there, and with tens of cases new ones can fare far worse. Asked to be sure, it is picked among
few, each by what its error may be rather than by what it was (Geifman and El-Yaniv, Selective classification for deep
neural networks, NeurIPS 2017, algorithm 1, with a fixed grid of shares).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from scipy.stats import beta

from data_shards.support.errors import DataError
from data_shards.vocabulary import Task
from finetune.classifier.subjects import subject_weights
from finetune.classifier.uncertainty import checked_probabilities
from finetune.scores.metrics import aligned, decide

LEVEL = 0.95
SHARES = 10
"""To be sure, the threshold is picked among those that answer so many parts of the held-out cases."""

_ROUNDING = 1e-9


def abstains(sets: np.ndarray, decided_NL: np.ndarray) -> np.ndarray:
    """Where a set gives no answer: it holds several, none, or another one than is decided.

    A set may hold the less likely of two classes alone, where the classes are held to their coverage each by itself.

    Args:
        sets: of :meth:`Conformal.sets`; ``(N, C)`` gives ``(N,)``, ``(N, L, 2)`` of several labels gives ``(N, L)``.
        decided_NL: the decisions, ``(N, 1)`` of one label.
    """
    by_label = sets[:, None] if sets.ndim == 2 else sets
    holds_NL = np.take_along_axis(by_label, decided_NL[..., None].astype(np.int64), axis=-1)[..., 0]
    found_NL: np.ndarray = (by_label.sum(axis=-1) != 1) | ~holds_NL
    return found_NL[:, 0] if sets.ndim == 2 else found_NL


@dataclass(frozen=True)
class ConfidenceRule:
    """Answer where the probability of the decision is high enough.

    Attributes:
        threshold: the smallest probability of a decision that is answered; None where nothing is.
        max_error: share of wrong answers that was allowed.
        answered: share of held-out cases, subjects weighing the same, that it answers.
        error: share of these that is wrong; None where nothing is answered.
        error_high: the error may be this high: the exact one-sided upper end of a proportion (Clopper and Pearson,
            Biometrika 26, 1934) of as many trials as answered subjects weigh; exact for one decision per subject.
        subjects: how many subjects it was chosen on.
        sure: probability that the error on new subjects is at most ``error_high``; None where the threshold was picked
            by the error it had, and ``error_high`` is 95 % sure only for a threshold given beforehand.
    """

    threshold: float | None
    max_error: float
    answered: float
    error: float | None
    error_high: float
    subjects: int
    sure: float | None = None

    def answers(self, probabilities_NC: np.ndarray, task: Task) -> np.ndarray:
        """Whether each decision is answered, bool ``(N,)``, or ``(N, L)`` of several labels.

        Raises:
            DataError: they are no probabilities of this task.
        """
        confidence_NL = _confidence(checked_probabilities(probabilities_NC, task), task)
        found = np.zeros(confidence_NL.shape, bool) if self.threshold is None else confidence_NL >= self.threshold
        return found if task is Task.multilabel else found[:, 0]

    @property
    def told(self) -> str:
        """What the rule is known to do, in words."""
        if self.threshold is None or self.error is None:
            surely = "" if self.sure is None else f" with {self.sure:.0%} certainty"
            return (
                f"No threshold keeps the share of wrong answers at {self.max_error:.1%} or less{surely} on the "
                f"{self.subjects} subjects given: no case is answered."
            )
        start = (
            f"Answered where the probability of the decision is {self.threshold:.3f} or more: {self.answered:.1%} of "
            f"the held-out cases of {self.subjects} subjects, of which {self.error:.1%} wrong."
        )
        if self.sure is not None:
            return (
                f"{start} On new subjects like them at most {self.error_high:.1%} are, with {self.sure:.0%} certainty "
                "for a model that saw none of them."
            )
        return (
            f"{start} The threshold was chosen on these cases, so more can be wrong on new ones; from chance alone up "
            f"to {self.error_high:.1%}."
        )

    def state(self) -> dict[str, Any]:
        """As plain JSON types."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Read back what :meth:`state` gave.

        Raises:
            TypeError: something is missing or unknown.
        """
        return cls(**state)


def confidence_threshold(
    probabilities: np.ndarray,
    labels: np.ndarray,
    task: Task,
    max_error: float,
    subjects_N: np.ndarray | None = None,
    *,
    sure: float | None = None,
) -> ConfidenceRule:
    """The threshold that answers most, of those with at most ``max_error`` wrong among the answered held-out cases.

    A decision on each of several labels is answered or not by itself, with one threshold for all.

    Args:
        probabilities: of models that did not see the case; as for :func:`finetune.scores.metrics.auc`.
        labels: as there.
        task: how they are to be read.
        max_error: share of wrong answers, in [0, 1).
        subjects_N: the subject of each case; each case is its own when left out. Subjects weigh the same.
        sure: how probable it must be that ``max_error`` holds for new subjects too, where the model saw none of these;
            of predictions out of folds it is expected, as :mod:`finetune.classifier.conformal` says.

    Raises:
        DataError: labels and probabilities do not fit together or the task, or a share is none.
    """
    if sure is not None and not 0 < sure < 1:
        raise DataError(f"certainty of {sure}, expected between 0 and 1")
    if not 0 <= max_error < 1:
        raise DataError(f"the largest share of wrong answers is {max_error}, expected at least 0 and less than 1")
    labels_NL, scores_NK = aligned(labels, probabilities, task)
    wrong_NL = decide(scores_NK, task) != labels_NL
    confidence_NL = _confidence(scores_NK, task)
    weight_N = subject_weights(len(labels_NL), subjects_N)
    subjects = round(weight_N.sum())
    weight_NL = np.repeat(weight_N[:, None] / labels_NL.shape[1], labels_NL.shape[1], axis=1)
    order = np.argsort(-confidence_NL.ravel(), kind="stable")
    confidence_M, weight_M, wrong_M = (each.ravel()[order] for each in (confidence_NL, weight_NL, wrong_NL))
    answered_M, failed_M = np.cumsum(weight_M), np.cumsum(weight_M * wrong_M)
    whole_M = np.flatnonzero(np.append(np.diff(confidence_M) != 0, True))  # equal ones are answered together
    if sure is None:
        level = LEVEL
        allowed = whole_M[failed_M[whole_M] <= max_error * answered_M[whole_M] + _ROUNDING]
    else:
        level = 1 - (1 - sure) / SHARES  # none of them fails, by the sum of what each may
        parts = np.arange(1, SHARES + 1) / SHARES * answered_M[-1] - _ROUNDING
        tried = np.unique(whole_M[np.searchsorted(answered_M[whole_M], parts)])
        allowed = tried[_highest_error(failed_M[tried], answered_M[tried], level) <= max_error]
    if not len(allowed):
        return ConfidenceRule(None, max_error, 0.0, None, 1.0, subjects, sure)
    last = int(allowed[-1])
    trials, failures = float(answered_M[last]), float(failed_M[last])
    high = float(_highest_error(failures, trials, level))
    return ConfidenceRule(
        float(confidence_M[last]), max_error, trials / subjects, failures / trials, high, subjects, sure
    )


def _highest_error(failures: np.ndarray | float, trials: np.ndarray | float, level: float) -> np.ndarray:
    """The upper end of Clopper and Pearson; 1 where all failed."""
    successes = np.subtract(trials, failures)
    bound: np.ndarray = beta.ppf(level, np.add(failures, 1), np.maximum(successes, _ROUNDING))
    return np.where(successes > _ROUNDING, bound, 1.0)


def _confidence(scores_NK: np.ndarray, task: Task) -> np.ndarray:
    """The probability of what is decided, ``(N, L)``."""
    if task is Task.binary:
        scores_NK = scores_NK[:, -1:]
    if task in (Task.binary, Task.multilabel):
        return np.maximum(scores_NK, 1 - scores_NK)
    return scores_NK.max(axis=1, keepdims=True)
