"""L2-regularised logistic regression in float64: the head of frozen features and the linear probe.

scikit-learn's ``LogisticRegression`` along a path of strengths, each fit starting from the one before. The objective
is ``strength * sum_i s_i loss_i + ||W||^2 / 2``, intercepts free, with sample weights ``s_i``. A binary or multi-label
task has one sigmoid per column, a multi-class task a softmax over its columns.

Shape suffixes: N images, D features, K columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from data_shards.support.errors import DataError
from data_shards.vocabulary import Task
from finetune.objective import balanced_weights, column_targets, loss_per_image, prior_offset, probabilities

STRENGTHS = tuple(10.0**exponent for exponent in range(-5, 2))
"""Candidates for the inverse regularisation strength, on standardised features."""

DEFAULT_STRENGTH = 1e-2
"""Used where no label can be held out to choose one."""

_MAX_ITERATIONS = 20_000
_GRADIENT_TOLERANCE = 1e-10
"""Of the mean loss. Probabilities are then within 1e-6 of those of the exact minimum."""


@dataclass(frozen=True)
class Standardiser:
    """Zero mean and unit variance per feature, as the training images have them; constant features are only centred."""

    mean_D: np.ndarray
    scale_D: np.ndarray

    @classmethod
    def of(cls, features_ND: np.ndarray) -> Standardiser:
        """The standardiser of these features.

        Raises:
            DataError: the features are not finite.
        """
        scaler = StandardScaler().fit(_finite(features_ND))
        return cls(scaler.mean_, scaler.scale_)

    def __call__(self, features_ND: np.ndarray) -> np.ndarray:
        """Standardise, in float64."""
        standard_ND: np.ndarray = (features_ND - self.mean_D) / self.scale_D
        return standard_ND


@dataclass(frozen=True)
class Logistic:
    """A fitted logistic regression: ``logits_NK = features_ND @ weight_KD.T + bias_K``."""

    weight_KD: np.ndarray
    bias_K: np.ndarray
    task: Task

    def logits(self, features_ND: np.ndarray) -> torch.Tensor:
        """Logits ``(N, K)``."""
        return torch.from_numpy(features_ND @ self.weight_KD.T + self.bias_K)

    def predict_proba(self, features_ND: np.ndarray) -> np.ndarray:
        """Probabilities ``(N, K)``; a binary task gets two columns."""
        return probabilities(self.logits(features_ND), self.task).numpy()


def fit_logistic(
    features: np.ndarray,
    labels: np.ndarray,
    task: Task,
    *,
    classes: int,
    strengths: Sequence[float],
    balanced: bool = False,
) -> list[Logistic]:
    """One fit for each strength.

    Args:
        features: ``(N, D)``, best standardised.
        labels: ``(N, L)`` as :class:`~finetune.labelled.LabelledImages` holds them.
        task: how the labels are to be read.
        classes: number of classes, or of labels of a multi-label task.
        strengths: inverse regularisation strengths, best in rising order.
        balanced: weight the classes inversely to their frequency; the intercepts are then those of the given
            prevalence, see :mod:`finetune.objective`.

    Raises:
        DataError: the features are not finite, or a class has no image.
    """
    features_ND = _finite(features)
    if task is Task.multilabel:
        paths = [_path(features_ND, label_N, strengths, None) for label_N in labels.T]
        stacked = [tuple(map(np.concatenate, zip(*fits, strict=True))) for fits in zip(*paths, strict=True)]
        return [Logistic(weight_KD, bias_K, task) for weight_KD, bias_K in stacked]
    absent = sorted(set(range(classes)) - set(labels[:, 0].tolist()))
    if absent:
        raise DataError(f"logistic regression: no image of class {absent[0]} among the {len(labels)} to be fitted to")
    weights_N = balanced_weights(labels, task, classes) if balanced else None
    offset_K = prior_offset(labels, task, classes) if balanced else 0.0
    path = _path(features_ND, labels[:, 0], strengths, weights_N)
    if classes == 2 and task is not Task.binary:
        # One column from scikit-learn, as two columns of a softmax with the same probabilities.
        path = [(np.concatenate([-w, w]) / 2, np.concatenate([-b, b]) / 2) for w, b in path]
    return [Logistic(weight_KD, bias_K + offset_K, task) for weight_KD, bias_K in path]


def _path(
    features_ND: np.ndarray, label_N: np.ndarray, strengths: Sequence[float], weights_N: np.ndarray | None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Coefficients ``(K, D)`` and intercepts ``(K,)`` at each strength."""
    if len(np.unique(label_N)) == 1:
        # A label that all images have, or none, of several: only how often is known (with Jeffreys' prior).
        count = len(label_N)
        log_odds = np.log((label_N.sum() + 0.5) / (count - label_N.sum() + 0.5))
        return [(np.zeros((1, features_ND.shape[1])), np.array([log_odds])) for _ in strengths]
    model = LogisticRegression(warm_start=True, tol=_GRADIENT_TOLERANCE, max_iter=_MAX_ITERATIONS)
    path = []
    for strength in strengths:
        model.set_params(C=strength).fit(features_ND, label_N, sample_weight=weights_N)
        path.append((model.coef_.copy(), model.intercept_.copy()))
    return path


@dataclass(frozen=True)
class Selection:
    """A regression refitted on all given labels with the strength that did best on held-out ones.

    Attributes:
        standardiser: of the features of all given labels.
        logistic: the fit on the standardised features.
        strength: the chosen one.
        held_out_loss: mean held-out log loss of each candidate; empty when nothing could be held out.
    """

    standardiser: Standardiser
    logistic: Logistic
    strength: float
    held_out_loss: dict[float, float]

    def predict_proba(self, features_ND: np.ndarray) -> np.ndarray:
        """Probabilities ``(N, K)`` for raw features; a binary task gets two columns."""
        return self.logistic.predict_proba(self.standardiser(features_ND))


def select_logistic(
    features: np.ndarray,
    labels: np.ndarray,
    task: Task,
    *,
    classes: int,
    folds: Sequence[tuple[np.ndarray, np.ndarray]],
    balanced: bool,
    refit: np.ndarray | None = None,
) -> Selection:
    """Choose the regularisation strength on held-out labels, then fit once more.

    The criterion is the held-out log loss, a proper score: with a handful of held-out images, accuracy and AUC take
    only a few values and tie.

    Args:
        features: ``(N, D)`` raw features.
        labels: ``(N, L)``.
        task: how the labels are to be read.
        classes: number of classes, or of labels of a multi-label task.
        folds: pairs of training and held-out positions; see :func:`finetune.splits.selection_folds`.
        balanced: as for :func:`fit_logistic`.
        refit: positions of the final fit; all of them when left out.

    Raises:
        DataError: the features are not finite, or a class has no image to fit to.
    """

    def fits(rows: np.ndarray, strengths: Sequence[float]) -> tuple[Standardiser, list[Logistic]]:
        standardiser = Standardiser.of(features[rows])
        inputs = standardiser(features[rows])
        return standardiser, fit_logistic(
            inputs, labels[rows], task, classes=classes, strengths=strengths, balanced=balanced
        )

    losses = np.zeros(len(STRENGTHS))
    for train, held_out in folds:
        standardiser, path = fits(train, STRENGTHS)
        held_inputs = standardiser(features[held_out])
        targets = column_targets(labels[held_out], task, classes)
        held_loss = [float(loss_per_image(fit.logits(held_inputs), targets, task).mean()) for fit in path]
        losses += np.array(held_loss) / len(folds)
    strength = STRENGTHS[int(losses.argmin())] if folds else DEFAULT_STRENGTH
    standardiser, (logistic,) = fits(np.arange(len(labels)) if refit is None else refit, [strength])
    held_out_loss = dict(zip(STRENGTHS, losses.tolist(), strict=True)) if folds else {}
    return Selection(standardiser, logistic, strength, held_out_loss)


def _finite(features: np.ndarray) -> np.ndarray:
    features_ND = np.asarray(features, dtype=np.float64)
    if not np.isfinite(features_ND).all():
        raise DataError("features contain NaN or infinity")
    return features_ND
