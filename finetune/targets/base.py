"""What a target is: labels as numbers, what a network is trained to give for them, and what is read out of that.

Shape suffixes: N cases, L labels a case carries, O outputs of a head, K logits, C scores a case gets.

A head gives ``O`` outputs, :meth:`Target.link` makes ``K`` logits of them, and :meth:`Target.log_scores` turns these
into what everything else works on: the log of a probability for each class, log odds for each of several labels, or
the number itself of a regression. Prevalence, ensembles, temperature and decisions are said in these.

A model fitted with balanced weights, or on batches in which every class is equally common, learns the probabilities of
a world in which that is so. Those of the given labels differ by the ratio of the priors, ``p(k|x) ~ p_balanced(k|x)
n_k`` (Saerens, Latinne and Decaestecker, Adjusting the outputs of a classifier to new a priori probabilities, Neural
Computation 14, 2002, eq. 2.4; for logistic regression the prior correction of King and Zeng, Logistic regression in
rare events data, Political Analysis 9, 2001, section 4.1). It holds for whatever gives probabilities, is exact, and
needs no further labels; a calibration map would have to be fitted on held-out labels, of which there are few.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from data_shards.support.errors import DataError
from data_shards.support.registry import Registry
from data_shards.vocabulary import Task
from finetune.scores.metrics import SHARE, Score

SOFTPLUS_LINEAR = 40.0
"""Above this, softplus(x) = x to the last bit of a float64."""


@dataclass(frozen=True)
class Metric:
    """One number that says how good predictions are.

    Attributes:
        name: as tables show it.
        score: computes it.
        words: as sentences say it.
        chance: what guessing without the image gives in the mean; None where there is no such number.
        limits: what it can be at least and at most.
        rises: higher is better; so it is of the metric that decides.
    """

    name: str
    score: Score
    words: str
    chance: float | None = None
    limits: tuple[float, float] = SHARE
    rises: bool = True

    @property
    def bounded(self) -> bool:
        """Whether it is a share, in [0, 1]."""
        return self.limits == SHARE


@dataclass(frozen=True)
class Affine:
    """A linear model: ``logits_NK = features_ND @ weight_KD.T + bias_K``, float64."""

    weight_KD: np.ndarray
    bias_K: np.ndarray

    def __call__(self, features_ND: np.ndarray) -> Tensor:
        """Logits ``(N, K)`` float64."""
        return torch.from_numpy(np.asarray(features_ND, np.float64) @ self.weight_KD.T + self.bias_K)


class Target(abc.ABC):
    """What is to be told of a case.

    Args:
        classes: name of each class, or of each label or number where there are several.

    Attributes:
        task: the entry of the vocabulary.
        name: as registered: that of the task.
        classifies: whether it tells classes or labels, and not numbers.

    Raises:
        DataError: two of them have the same name.
    """

    task: ClassVar[Task]
    name: ClassVar[str]
    classifies: ClassVar[bool] = True

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(str(name) for name in classes)
        if len(set(self.classes)) < len(self.classes):
            twice = next(name for name in self.classes if self.classes.count(name) > 1)
            raise DataError(f"{twice!r} is the name of more than one of the {len(self.classes)} classes")

    @property
    @abc.abstractmethod
    def outputs(self) -> int:
        """How many numbers a head gives."""

    @property
    def logits(self) -> int:
        """How many logits there are of them."""
        return self.outputs

    def link(self) -> nn.Module | None:
        """What makes logits of outputs, with weights of its own; None where they are the same."""
        return None

    def fitted_to(self, labels_NL: np.ndarray) -> Self:
        """The target with what it has to know of the given labels, such as their scale."""
        del labels_NL
        return self

    @abc.abstractmethod
    def check(self, labels_NL: np.ndarray) -> None:
        """Refuse labels that are not of this target.

        Raises:
            DataError: says what is wrong with them.
        """

    @abc.abstractmethod
    def values(self, labels_NL: np.ndarray) -> Tensor:
        """Labels as :meth:`loss` takes them, cases along the first axis."""

    @abc.abstractmethod
    def loss(self, logits_NK: Tensor, values: Tensor) -> Tensor:
        """Negative log likelihood of each case, ``(N,)``, up to a constant; what training minimises."""

    @abc.abstractmethod
    def log_scores(self, logits_NK: Tensor, offset_C: Tensor | None = None) -> Tensor:
        """Log probabilities ``(N, C)`` of classes; log odds ``(N, L)`` of labels; numbers ``(N, L)``.

        Args:
            logits_NK: of a network or a linear model.
            offset_C: of :meth:`offset`, when it was fitted with balanced weights.
        """

    @abc.abstractmethod
    def log_of(self, probabilities_NC: np.ndarray) -> np.ndarray:
        """The log scores that give these probabilities: :meth:`probabilities` the other way round."""

    def into_link(self, link: nn.Module | None, affine: Affine) -> Affine:
        """Put what a linear model has of the link there; what is left gives outputs."""
        assert link is None
        return affine

    @abc.abstractmethod
    def probabilities(self, log_scores_NC: np.ndarray, temperature: float = 1.0) -> np.ndarray:
        """Probabilities ``(N, C)``; each label by itself where there are several; the numbers of a regression.

        Args:
            log_scores_NC: of :meth:`log_scores`.
            temperature: they are divided by it (Guo et al., On calibration of modern neural networks, ICML 2017).
        """

    @abc.abstractmethod
    def log_loss(self, log_scores_NC: Tensor, labels_NL: np.ndarray) -> Tensor:
        """Negative log likelihood of each case, ``(N,)``, by what is given out."""

    @abc.abstractmethod
    def decide(self, probabilities_NC: np.ndarray) -> np.ndarray:
        """The label that probabilities stand for, ``(N, L)``."""

    @abc.abstractmethod
    def strata(self, labels_NL: np.ndarray) -> np.ndarray:
        """One stratum per case, int64 ``(N,)``, for cutting folds."""

    @abc.abstractmethod
    def linear_path(
        self,
        features_ND: np.ndarray,
        labels_NL: np.ndarray,
        strengths: Sequence[float],
        weights_N: np.ndarray | None,
        *,
        rough: bool = False,
    ) -> list[Affine]:
        """The linear model with an L2 penalty at each inverse strength, to convergence in float64.

        The objective is ``strength * sum_i w_i loss_i + ||W||^2 / 2``, intercepts free.

        Args:
            features_ND: standardised.
            labels_NL: the labels.
            strengths: inverse penalties.
            weights_N: of the cases; None for ones.
            rough: three digits are enough, to choose a strength by.

        Raises:
            DataError: the features are not finite, or a class has no case.
        """

    @property
    @abc.abstractmethod
    def metrics(self) -> tuple[Metric, ...]:
        """How predictions are scored; the first is the one that decides."""

    def weights(self, labels_NL: np.ndarray) -> np.ndarray:
        """Weights of mean 1 that give every class that occurs the same total, ``(N,)``; ones where there is none."""
        return np.ones(len(labels_NL))

    def offset(self, labels_NL: np.ndarray) -> np.ndarray | None:
        """What :meth:`log_scores` adds so that the given prevalence holds again, ``(C,)``; None for nothing."""
        del labels_NL
        return None

    def carried(self, labels_NL: np.ndarray) -> np.ndarray:
        """Whether a case is of each class, or has each label: bool ``(N, C)``; no columns where there are numbers."""
        return np.zeros((len(labels_NL), 0), dtype=bool)

    def counts(self, labels_NL: np.ndarray) -> dict[str, int]:
        """How many cases each class or label has; empty for numbers."""
        # Numbers have names, too, but nothing that could be counted under them.
        return dict(zip(self.classes, self.carried(labels_NL).sum(axis=0).tolist(), strict=False))

    def state(self) -> dict[str, Any]:
        """As plain JSON types, for :func:`target_from_state`."""
        return {"target": self.task.name, "classes": list(self.classes)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Read back what :meth:`state` gave.

        Raises:
            DataError: the classes do not fit.
            KeyError: something is missing.
        """
        return cls(state["classes"])


TargetClass = TypeVar("TargetClass", bound=type[Target])
TARGETS: Registry[Target] = Registry("target")


def register_target(cls: TargetClass) -> TargetClass:
    """Class decorator: makes a target known by the name of its task, in the place of the one that has it."""
    TARGETS.register(cls.task.name, replace=True)(cls)
    return cls


def create_target(name: str, classes: Sequence[str]) -> Target:
    """A new target.

    Raises:
        ConfigError: there is none of this name.
        DataError: the classes do not fit it.
    """
    return TARGETS.named(name)(classes)


def target_from_state(state: Mapping[str, Any]) -> Target:
    """Read back what :meth:`Target.state` gave.

    Raises:
        ConfigError: there is none of this name.
        DataError: the classes do not fit it.
        KeyError: something is missing.
    """
    return TARGETS.named(state["target"]).from_state(state)


class ClassTarget(Target):
    """What binary, multi-class and ordinal targets share: a case is of exactly one class."""

    def check(self, labels_NL: np.ndarray) -> None:
        """One class index per case."""
        if labels_NL.ndim != 2 or labels_NL.shape[1] != 1 or labels_NL.dtype.kind not in "iu":
            raise DataError(
                f"a {self.task.name} target has one class per case, an integer; found labels of shape "
                f"{labels_NL.shape} and type {labels_NL.dtype}"
            )
        if len(labels_NL) and not 0 <= labels_NL.min() <= labels_NL.max() < len(self.classes):
            raise DataError(
                f"labels run from {labels_NL.min()} to {labels_NL.max()}; the {len(self.classes)} classes are numbered "
                f"0 to {len(self.classes) - 1}"
            )

    def values(self, labels_NL: np.ndarray) -> Tensor:
        """Class indices, int64 ``(N,)``."""
        return torch.from_numpy(labels_NL[:, 0].astype(np.int64))

    def probabilities(self, log_scores_NC: np.ndarray, temperature: float = 1.0) -> np.ndarray:
        """Probabilities ``(N, C)`` that add up to 1."""
        scaled = torch.from_numpy(np.asarray(log_scores_NC, np.float64)) / temperature
        found: np.ndarray = scaled.softmax(dim=1).numpy()
        return found

    def log_of(self, probabilities_NC: np.ndarray) -> np.ndarray:
        """The log; of 0 that of the smallest number."""
        return np.log(np.maximum(probabilities_NC, np.finfo(np.float64).tiny))

    def log_loss(self, log_scores_NC: Tensor, labels_NL: np.ndarray) -> Tensor:
        """Minus the log probability of the right class, ``(N,)``."""
        return -log_scores_NC.gather(1, self.values(labels_NL).to(log_scores_NC.device)[:, None])[:, 0]

    def decide(self, probabilities_NC: np.ndarray) -> np.ndarray:
        """The likeliest class, ``(N, 1)``."""
        decided: np.ndarray = probabilities_NC.argmax(axis=1)[:, None]
        return decided

    def strata(self, labels_NL: np.ndarray) -> np.ndarray:
        """The class of each case."""
        return labels_NL[:, 0].astype(np.int64)

    def weights(self, labels_NL: np.ndarray) -> np.ndarray:
        """Weights inverse to the frequency of the class, ``(N,)`` of mean 1."""
        count_C = self._count(labels_NL)
        weights: np.ndarray = len(labels_NL) / ((count_C > 0).sum() * count_C[labels_NL[:, 0]])
        return weights

    def offset(self, labels_NL: np.ndarray) -> np.ndarray:
        """The log of each class's share times the number of classes that occur, ``(C,)``; 0 for one that does not."""
        count_C = self._count(labels_NL)
        present = count_C > 0
        offset_C = np.zeros(len(self.classes))
        offset_C[present] = np.log(count_C[present] * present.sum() / len(labels_NL))
        return offset_C

    def carried(self, labels_NL: np.ndarray) -> np.ndarray:
        """Whether a case is of each class."""
        of_class: np.ndarray = labels_NL == np.arange(len(self.classes))
        return of_class

    def _count(self, labels_NL: np.ndarray) -> np.ndarray:
        return np.bincount(labels_NL[:, 0], minlength=len(self.classes))

    def _require_all(self, labels_NL: np.ndarray) -> None:
        absent = np.flatnonzero(self._count(labels_NL) == 0)
        if len(absent):
            raise DataError(f"no case of class {self.classes[absent[0]]!r} among the {len(labels_NL)} to be fitted to")


def shifted(log_probabilities_NC: Tensor, offset_C: Tensor | None) -> Tensor:
    """Log probabilities under another prevalence: the offset added, and normalised again."""
    if offset_C is None:
        return log_probabilities_NC
    return (log_probabilities_NC + offset_C.to(log_probabilities_NC)).log_softmax(dim=1)
