"""The estimators: a backbone adapted to a few labels, in the shape scikit-learn users know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils import Tags

from data_shards.support.errors import ConfigError, DataError
from data_shards.vocabulary import Task
from finetune.cases import Cases
from finetune.classifier.labels import encode_classes, encode_numbers
from finetune.classifier.model import FewLabelModel, NotFitted
from finetune.scores.metrics import accuracy
from finetune.targets import Target

__all__ = ["FewLabelClassifier", "FewLabelModel", "FewLabelRegressor", "NotFitted"]


class FewLabelClassifier(ClassifierMixin, FewLabelModel):
    """Adapts a backbone to a few labelled cases of two or more classes, or of several labels.

    Parameters and attributes are those of :class:`~finetune.classifier.model.FewLabelModel`.
    """

    def predict_proba(
        self, X: np.ndarray | Cases, spacing_mm: Sequence[float] | np.ndarray | None = None
    ) -> np.ndarray:
        """Probabilities ``(N, K)`` in the order of ``classes_``; of each label alone for a multi-label task.

        ``X`` and ``spacing_mm`` are as in :meth:`fit`.

        Raises:
            NotFitted: the estimator is not fitted.
            DataError: the images cannot be used.
        """
        return self._fitted().predict_proba(self._cases(X, spacing_mm))

    def predict(self, X: np.ndarray | Cases, spacing_mm: Sequence[float] | np.ndarray | None = None) -> np.ndarray:
        """The decided label of each case, ``(N,)``; 0/1 per label ``(N, L)`` for a multi-label task."""
        target = self._fitted().target
        decided_NL = target.decide(self.predict_proba(X, spacing_mm))
        if target.task is Task.multilabel:
            return decided_NL
        labels: np.ndarray = self.classes_[decided_NL[:, 0]]
        return labels

    def score(
        self,
        X: np.ndarray | Cases,
        y: np.ndarray | None = None,
        spacing_mm: Sequence[float] | np.ndarray | None = None,
    ) -> float:
        """Accuracy, as scikit-learn's classifiers give; see :mod:`finetune.scores.metrics` for the others.

        Args:
            X: as in :meth:`fit`.
            y: the right labels, as they were in :meth:`fit`; left out, those of the cases, told apart by the names of
                their classes.
            spacing_mm: as in :meth:`fit`.
        """
        target = self._fitted().target
        if y is None:
            if not isinstance(X, Cases):
                raise DataError("y: expected labels; only cases bring their own")
            if target.task is not Task.multilabel:
                decided_N = target.decide(self.predict_proba(X))[:, 0]
                return float(np.mean(_names(target)[decided_N] == _names(X.target)[X.known_labels[:, 0]]))
            y = X.known_labels
        if target.task is Task.multilabel:
            return float(accuracy(np.asarray(y), self.predict_proba(X, spacing_mm), target.task))
        return float(np.mean(self.predict(X, spacing_mm) == np.asarray(y).reshape(-1)))

    def __sklearn_tags__(self) -> Tags:
        """Several labels are possible."""
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def _labels(self, cases: Cases, y: Any) -> tuple[np.ndarray | None, np.ndarray, Target]:
        own = cases.labels is not None
        if y is None:
            labels = cases.known_labels
            if not cases.target.classifies:
                raise DataError(f"{cases.name}: numbers; FewLabelRegressor learns them")
            if self.task not in (None, cases.task.name):
                raise ConfigError(f"{cases.name}: a {cases.task.name} task, and {self.task} was asked for")
            return np.array(cases.target.classes), labels, cases.target
        # Class indices of cases are of the task of the cases, which their values do not say.
        task = cases.task.name if own and self.task is None and np.array_equal(y, cases.targets) else self.task
        classes, labels, target = encode_classes(y, task)
        named = own and len(cases.classes) == len(classes) and cases.target.classifies
        if named and np.array_equal(classes, np.arange(len(classes))):
            # Indices into the names that the cases have; the model keeps the names.
            return classes, labels, type(target)(cases.target.classes)
        return classes, labels, target


class FewLabelRegressor(RegressorMixin, FewLabelModel):
    """Adapts a backbone to a few cases with numbers to be told.

    Parameters and attributes are those of :class:`~finetune.classifier.model.FewLabelModel`.
    """

    def predict(self, X: np.ndarray | Cases, spacing_mm: Sequence[float] | np.ndarray | None = None) -> np.ndarray:
        """The number of each case, ``(N,)``; ``(N, L)`` where there are several.

        ``X`` and ``spacing_mm`` are as in :meth:`fit`.

        Raises:
            NotFitted: the estimator is not fitted.
            DataError: the images cannot be used.
        """
        numbers_NL = self._fitted().predict_proba(self._cases(X, spacing_mm))
        return numbers_NL[:, 0] if numbers_NL.shape[1] == 1 else numbers_NL

    def score(
        self,
        X: np.ndarray | Cases,
        y: np.ndarray | None = None,
        spacing_mm: Sequence[float] | np.ndarray | None = None,
    ) -> float:
        """Share of the variance, R2, the mean over numbers, as scikit-learn's regressors give.

        Args:
            X: as in :meth:`fit`.
            y: the right numbers; left out, those of the cases.
            spacing_mm: as in :meth:`fit`.
        """
        if y is None:
            if not isinstance(X, Cases):
                raise DataError("y: expected numbers; only cases bring their own")
            y = X.known_labels
        numbers, told = np.asarray(y, np.float64), self.predict(X, spacing_mm)
        return float(r2_score(numbers.reshape(len(told), -1), told.reshape(len(told), -1)))

    def _labels(self, cases: Cases, y: Any) -> tuple[np.ndarray | None, np.ndarray, Target]:
        if self.task not in (None, Task.regression.name):
            raise ConfigError(f"a regressor learns numbers, and the task {self.task} was asked for")
        if y is None:
            labels = cases.known_labels
            if cases.target.classifies:
                raise DataError(f"{cases.name}: classes; FewLabelClassifier learns them")
            return None, labels, cases.target
        labels, target = encode_numbers(y)
        if cases.labels is not None and not cases.target.classifies and len(cases.classes) == labels.shape[1]:
            target = cases.target
        return None, labels, target


def _names(target: Target) -> np.ndarray:
    return np.array(target.classes)
