"""Prediction sets: the classes, or the range of a number, that held-out cases do not speak against.

A case gets a score of how strange each possible answer would be; an answer is kept where it is not stranger than
the right answers of held-out cases were, but for a share ``alpha`` of them. With ``G`` subjects to calibrate on, the
threshold is the smallest score with ``(G + 1) (1 - alpha)`` subjects at or below it, which each case of a subject
counts towards by one divided by the cases of that subject. What is known of the coverage:

- Calibrated on subjects that the model did not see and that were drawn as new ones are, sets hold the right answer of a
  case, drawn from a new subject, with probability at least ``1 - alpha``; in the mean over calibrations, whatever the
  model and whatever cases of a subject share (Lee, Barber and Willett, Distribution-free inference with hierarchical
  data, 2023, for the weights; Vovk, Gammerman and Shafer, Algorithmic learning in a random world, 2005, without them).
  It is the mean over subjects, not a promise for each case or for each kind of case.
- Calibrated by class (Mondrian), the same holds for each class by itself. Else a rare class may never be covered.
- Calibrated on out-of-fold predictions and used with a model fitted to all cases, ``1 - alpha`` is expected but not
  guaranteed: the models differ (Vovk, Cross-conformal predictors, Annals of Mathematics and AI 74, 2015). Even where
  the models of the folds are kept and each is compared with its own fold (CV+), ``1 - 2 alpha`` is all that is proven,
  less a term that goes with the number of folds (Barber, Candes, Ramdas and Tibshirani, Predictive inference with the
  jackknife+, Annals of Statistics 49, 2021, theorem 4). Models of folds saw fewer cases, so sets tend to be too wide.

A set may hold nothing: no class is as likely as right ones usually are. That is how ``1 - alpha`` is kept where the
model is right more often than that, and it is no answer, as a set of several is none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from data_shards.support.errors import ConfigError, DataError
from data_shards.vocabulary import Task
from finetune.classifier.subjects import subject_weights
from finetune.targets.base import Target

METHODS = ("lac", "aps")
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Conformal:
    """Sets of classes or labels, or intervals of numbers.

    Shape suffixes: N cases, C probabilities, L labels a case carries, V values a label can take (one for a number).

    Attributes:
        task: name of the task of the target.
        classes: names of its classes, labels or numbers.
        alpha: share of new subjects that may be missed.
        method: ``lac``, one minus the probability (Sadinle, Lei and Wasserman, Least ambiguous set-valued classifiers,
            JASA 114, 2019), which gives the smallest sets; ``aps``, the probability of all classes that are at least as
            likely (Romano, Sesia and Candes, Classification with valid and adaptive coverage, NeurIPS 2020, without
            its random part, so it covers somewhat more), whose sets grow with the difficulty of a case; ``residual``.
        by_class: whether each class, or each value of a label, has its own threshold.
        thresholds_LV: the largest score that is kept; None where every answer is.
        subjects_LV: how many subjects each was calibrated on.
        held_out: whether the model that is used saw none of these cases; False for predictions out of folds.
    """

    task: str
    classes: tuple[str, ...]
    alpha: float
    method: str
    by_class: bool
    thresholds_LV: tuple[tuple[float | None, ...], ...]
    subjects_LV: tuple[tuple[int, ...], ...]
    held_out: bool

    @classmethod
    def fit(
        cls,
        target: Target,
        probabilities_NC: np.ndarray,
        labels_NL: np.ndarray,
        alpha: float = 0.1,
        subjects_N: np.ndarray | None = None,
        *,
        by_class: bool = False,
        method: str = "lac",
        held_out: bool = False,
    ) -> Self:
        """Find the thresholds.

        Args:
            target: what is told of a case.
            probabilities_NC: of :meth:`Target.probabilities`, of models that did not see the case.
            labels_NL: the labels.
            alpha: share of new subjects that may be missed.
            subjects_N: the subject of each case; each case is its own when left out.
            by_class: see :class:`Conformal`; not for numbers.
            method: ``lac`` or ``aps``; several labels have ``lac`` only, and numbers have the absolute residual.
            held_out: see :class:`Conformal`.

        Raises:
            ConfigError: ``alpha`` is not between 0 and 1, or the target does not have this method.
            DataError: labels and probabilities do not fit together, or one is NaN.
        """
        if not 0 < alpha < 1:
            raise ConfigError(f"alpha is {alpha}, expected between 0 and 1")
        if method not in METHODS:
            raise ConfigError(f"unknown conformal method {method!r}, expected one of {', '.join(METHODS)}")
        if target.task is Task.multilabel and method == "aps":
            raise ConfigError("aps is for one of several classes; several labels have lac")
        if by_class and not target.classifies:
            raise ConfigError("sets by class are for classes; a regression has none")
        target.check(labels_NL)
        method = method if target.classifies else "residual"
        probabilities_NC = _checked(probabilities_NC, target.task, target.classes)
        if not len(labels_NL) or len(probabilities_NC) != len(labels_NL):
            raise DataError(f"{len(probabilities_NC)} predictions for {len(labels_NL)} cases to calibrate on")
        if target.classifies:
            score_NLV = _strangeness(probabilities_NC, target.task, method)
            values = score_NLV.shape[2]
            right_NL = np.take_along_axis(score_NLV, labels_NL.astype(np.int64)[:, :, None], axis=2)[:, :, 0]
        else:
            values, right_NL = 1, np.abs(probabilities_NC - labels_NL)
        every = np.ones(len(labels_NL), bool)
        found = [
            [_threshold(right_N, label_N == value if by_class else every, alpha, subjects_N) for value in range(values)]
            for right_N, label_N in zip(right_NL.T, labels_NL.T, strict=True)
        ]
        return cls(
            target.task.name, target.classes, float(alpha), method, by_class,
            tuple(tuple(threshold for threshold, _ in row) for row in found),
            tuple(tuple(subjects for _, subjects in row) for row in found), held_out,
        )  # fmt: skip

    def sets(self, probabilities_NC: np.ndarray) -> np.ndarray:
        """Whether each class is kept, bool ``(N, C)``; of several labels the values 0 and 1 of each, ``(N, L, 2)``.

        Raises:
            DataError: these are numbers, or not as many columns as there are classes.
        """
        if self.method == "residual":
            raise DataError("a regression has intervals, not sets")
        task = Task[self.task]
        score_NLV = _strangeness(_checked(probabilities_NC, task, self.classes), task, self.method)
        kept_NLV = score_NLV <= self._limits() + _ROUNDING
        return kept_NLV if task is Task.multilabel else kept_NLV[:, 0]

    def intervals(self, numbers_NL: np.ndarray) -> np.ndarray:
        """Lower and upper end for each number, ``(N, L, 2)`` in its units; infinite where nothing is known.

        Raises:
            DataError: the target is not a regression, or has another number of numbers.
        """
        if self.method != "residual":
            raise DataError(f"a {self.task} target has sets, not intervals")
        numbers_NL = _checked(numbers_NL, Task.regression, self.classes)
        half_L = self._limits()[:, 0]
        return np.stack([numbers_NL - half_L, numbers_NL + half_L], axis=2)

    def covers(self, probabilities_NC: np.ndarray, labels_NL: np.ndarray) -> np.ndarray:
        """Whether the right answer is in the set or interval, bool ``(N, L)``."""
        if self.method == "residual":
            ends_NL2 = self.intervals(probabilities_NC)
            inside: np.ndarray = (ends_NL2[..., 0] <= labels_NL) & (labels_NL <= ends_NL2[..., 1])
            return inside
        sets = self.sets(probabilities_NC)
        sets_NLV = sets if sets.ndim == 3 else sets[:, None]
        return np.take_along_axis(sets_NLV, labels_NL.astype(np.int64)[:, :, None], axis=2)[:, :, 0]

    @property
    def told(self) -> str:
        """What the sets promise, in words."""
        article, what = ("an", "interval") if self.method == "residual" else ("a", "set")
        each = {"multilabel": " for each label by itself", "regression": " for each number by itself"}
        share = f"{1 - self.alpha:.4g}"
        if self.held_out:
            promise = f"{article} {what} holds the right answer with probability {share} or more"
        else:
            promise = f"{article} {what} is expected, not guaranteed, to hold the right answer with probability {share}"
        fewest, most = (pick(pick(row) for row in self.subjects_LV) for pick in (min, max))
        on = f"{most} subjects" if fewest == most else f"{fewest} to {most} subjects"
        parts = [
            f"For a case of a new subject like those given, {promise}{each.get(self.task, '')}"
            f"{', within every class' if self.by_class else ''}; calibrated on {on}"
            f"{' of a class' if self.by_class else ''}."
        ]
        unknown = self._unknown()
        if unknown:
            needed = math.ceil((1 - self.alpha) / self.alpha - _ROUNDING)
            parts.append(
                f"At least {needed} subjects{' of a class' if self.by_class else ''} are needed; with fewer, the "
                f"{what} always holds {'every number' if what == 'interval' else unknown}."
            )
        return " ".join(parts)

    def _unknown(self) -> str:
        """What is always kept, because too few cases speak about it."""
        rows = zip(self.classes, self.thresholds_LV, strict=False)
        if len(self.classes) == len(self.thresholds_LV) and self.task != Task.regression.name:
            names = [f"{name} {'present' if v else 'absent'}" for name, row in rows for v in (0, 1) if row[v] is None]
        else:
            values = self.thresholds_LV[0] if self.task != Task.regression.name else [r[0] for r in self.thresholds_LV]
            names = [name for name, threshold in zip(self.classes, values, strict=True) if threshold is None]
        return ", ".join(names)

    def _limits(self) -> np.ndarray:
        return np.array([[math.inf if each is None else each for each in row] for row in self.thresholds_LV])

    def state(self) -> dict[str, Any]:
        """As plain JSON types."""
        rows = {name: [list(row) for row in getattr(self, name)] for name in ("thresholds_LV", "subjects_LV")}
        return {**asdict(self), "classes": list(self.classes), **rows}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Read back what :meth:`state` gave.

        Raises:
            TypeError: something is missing or unknown.
        """
        rows = {name: tuple(tuple(row) for row in state[name]) for name in ("thresholds_LV", "subjects_LV")}
        return cls(**{**state, "classes": tuple(state["classes"]), **rows})


def _strangeness(probabilities_NC: np.ndarray, task: Task, method: str) -> np.ndarray:
    """How strange each answer would be, ``(N, L, V)``."""
    if task is Task.multilabel:
        return np.stack([probabilities_NC, 1 - probabilities_NC], axis=2)
    if method == "lac":
        return (1 - probabilities_NC)[:, None]
    order_NC = np.argsort(-probabilities_NC, axis=1, kind="stable")
    mass_NC = np.cumsum(np.take_along_axis(probabilities_NC, order_NC, axis=1), axis=1)
    mass_NC[:, -1] = 1  # the least likely class: equal for all cases, not apart by rounding
    score_NC = np.empty_like(mass_NC)
    np.put_along_axis(score_NC, order_NC, mass_NC, axis=1)
    return score_NC[:, None]


def _threshold(
    score_N: np.ndarray, chosen_N: np.ndarray, alpha: float, subjects_N: np.ndarray | None
) -> tuple[float | None, int]:
    """The smallest score with ``(G + 1)(1 - alpha)`` subjects at or below it, None where there are not that many."""
    score_N = score_N[chosen_N]
    weight_N = subject_weights(len(score_N), None if subjects_N is None else subjects_N[chosen_N])
    subjects = round(weight_N.sum())
    order = np.argsort(score_N, kind="stable")
    below_N = np.cumsum(weight_N[order])
    position = int(np.searchsorted(below_N, (subjects + 1) * (1 - alpha) - _ROUNDING * (subjects + 1)))
    return (float(score_N[order[position]]) if position < len(score_N) else None), subjects


def _checked(probabilities_NC: np.ndarray, task: Task, classes: tuple[str, ...]) -> np.ndarray:
    found = np.asarray(probabilities_NC, np.float64)
    if found.ndim != 2 or found.shape[1] != len(classes):
        raise DataError(f"predictions of shape {found.shape} of a {task.name} target with {len(classes)} columns")
    if not np.isfinite(found).all():
        raise DataError("predictions contain NaN or infinity")
    return found
