"""L2-regularised logistic regression in float64, by L-BFGS: the head of frozen features and the linear probe.

The objective is scikit-learn's: ``strength * sum_i s_i loss_i + ||W||^2 / 2``, intercepts free, with sample weights
``s_i``. A binary or multi-label task has one sigmoid per column, a multi-class task a softmax over its columns.

Shape suffixes: N images, D features, K columns, P rank of the features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from data_shards.support.errors import DataError
from data_shards.vocabulary import Task
from finetune.objective import balanced_weights, column_targets, logit_count, loss_per_image, probabilities

STRENGTHS = tuple(10.0**exponent for exponent in range(-5, 2))
"""Candidates for the inverse regularisation strength, on standardised features."""

DEFAULT_STRENGTH = 1e-2
"""Used where no label can be held out to choose one."""

_MAX_ITERATIONS = 1000
_GRADIENT_TOLERANCE = 1e-7
_HISTORY = 20
_MINIMUM_SCALE = 1e-12


@dataclass(frozen=True)
class Standardiser:
    """Zero mean and unit variance per feature, as the training images have them; constant features are only centred."""

    mean_D: np.ndarray
    scale_D: np.ndarray

    @classmethod
    def of(cls, features_ND: np.ndarray) -> Standardiser:
        """The standardiser of these features."""
        deviation_D = features_ND.std(axis=0, dtype=np.float64)
        return cls(features_ND.mean(axis=0, dtype=np.float64), np.where(deviation_D > _MINIMUM_SCALE, deviation_D, 1.0))

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

    def predict_proba(self, features_ND: np.ndarray) -> np.ndarray:
        """Probabilities ``(N, K)``; a binary task gets two columns."""
        logits_NK = torch.from_numpy(features_ND @ self.weight_KD.T + self.bias_K)
        return probabilities(logits_NK, self.task).numpy()


def principal_axes(centred_ND: np.ndarray) -> np.ndarray:
    """An orthonormal basis ``(P, D)`` of the span of the rows; axes without variance beyond rounding are left out."""
    images, features = centred_ND.shape
    if images > features:
        # The basis need not be more than orthonormal, so the squared condition number does no harm.
        axes_PD: np.ndarray = np.linalg.eigh(centred_ND.T @ centred_ND)[1].T
        return axes_PD
    _, singular_P, axes_PD = np.linalg.svd(centred_ND, full_matrices=False)
    return axes_PD[singular_P > singular_P.max(initial=0.0) * max(images, features) * np.finfo(np.float64).eps]


class Problem:
    """Features and labels made ready to be fitted at several regularisation strengths.

    The problem is solved in the basis of the principal axes of the features. That is exact, for the optimal weights lie
    in their span (representer theorem), and with few images it is as small as their number.

    Args:
        features: ``(N, D)``, best standardised.
        labels: ``(N, L)`` as :class:`~finetune.labelled.LabelledImages` holds them.
        task: how the labels are to be read.
        classes: number of classes, or of labels of a multi-label task.
        weights: ``(N,)`` sample weights.

    Raises:
        DataError: the features are not finite.
    """

    def __init__(
        self, features: np.ndarray, labels: np.ndarray, task: Task, classes: int, weights: np.ndarray | None = None
    ) -> None:
        features_ND = np.asarray(features, dtype=np.float64)
        if not np.isfinite(features_ND).all():
            raise DataError("features contain NaN or infinity")
        self.task = task
        self.columns = logit_count(task, classes)
        self.targets = column_targets(labels, task, classes)
        self.share_N = torch.ones(len(features_ND), dtype=torch.float64)
        if weights is not None:
            self.share_N = torch.from_numpy(weights).double()
        self.centre_D = features_ND.mean(axis=0)
        self.axes_PD = principal_axes(features_ND - self.centre_D)
        self.rotated_NP = torch.from_numpy((features_ND - self.centre_D) @ self.axes_PD.T)
        self.variance_P = self.rotated_NP.square().mean(dim=0)
        self.weight_KP = torch.zeros(self.columns, self.rotated_NP.shape[1], dtype=torch.float64)
        self.bias_K = torch.zeros(self.columns, dtype=torch.float64)

    def fit(self, strength: float) -> Logistic:
        """The minimum at inverse regularisation ``strength``; starts from that of the strength fitted before."""
        self._minimise(strength)
        weight_KD = self.weight_KP.numpy() @ self.axes_PD
        bias_K = self.bias_K.numpy() - weight_KD @ self.centre_D
        if self.task in (Task.multiclass, Task.ordinal):
            # A softmax does not change when all intercepts move together; report those of zero mean.
            bias_K = bias_K - bias_K.mean()
        return Logistic(weight_KD, bias_K, self.task)

    def _minimise(self, strength: float) -> None:
        """L-BFGS with a strong-Wolfe line search on the objective divided by ``strength * N``.

        Each principal axis is rescaled to unit curvature, taking that of the loss at zero weights, 1/4 times the
        variance along the axis: without it, the number of steps grows with the condition number of the features.
        """
        images = len(self.rotated_NP)
        penalty = 1 / (strength * images)
        unit_P = (self.variance_P / 4 + penalty).rsqrt()
        scaled_KP = (self.weight_KP / unit_P).requires_grad_()
        bias_K = self.bias_K.clone().requires_grad_()
        optimizer = torch.optim.LBFGS(
            [scaled_KP, bias_K],
            max_iter=_MAX_ITERATIONS,
            tolerance_grad=_GRADIENT_TOLERANCE,
            tolerance_change=0.0,
            history_size=_HISTORY,
            line_search_fn="strong_wolfe",
        )

        def closure() -> Tensor:
            optimizer.zero_grad()
            weight_KP = unit_P * scaled_KP
            logits_NK = F.linear(self.rotated_NP, weight_KP, bias_K)
            data = (self.share_N * loss_per_image(logits_NK, self.targets, self.task)).sum() / images
            objective: Tensor = data + penalty * weight_KP.square().sum() / 2
            objective.backward()
            return objective

        optimizer.step(closure)
        self.weight_KP, self.bias_K = scaled_KP.detach() * unit_P, bias_K.detach()
        self.iterations = optimizer.state[scaled_KP]["n_iter"]


def fit_logistic(
    features: np.ndarray,
    labels: np.ndarray,
    task: Task,
    *,
    classes: int,
    strength: float,
    weights: np.ndarray | None = None,
) -> Logistic:
    """One fit at one strength; arguments as for :class:`Problem` and :meth:`Problem.fit`."""
    return Problem(features, labels, task, classes, weights).fit(strength)


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
        balanced: weight the classes inversely to their frequency.
        refit: positions of the final fit; all of them when left out.
    """

    def weights(rows: np.ndarray) -> np.ndarray | None:
        return balanced_weights(labels[rows], task, classes) if balanced else None

    losses = np.zeros(len(STRENGTHS))
    for train, held_out in folds:
        standardiser = Standardiser.of(features[train])
        inputs, held_inputs = standardiser(features[train]), standardiser(features[held_out])
        held_targets = column_targets(labels[held_out], task, classes)
        held_weights = weights(held_out)
        problem = Problem(inputs, labels[train], task, classes, weights(train))
        for index, strength in enumerate(STRENGTHS):
            fit = problem.fit(strength)
            logits = torch.from_numpy(held_inputs @ fit.weight_KD.T + fit.bias_K)
            loss_N = loss_per_image(logits, held_targets, task).numpy()
            losses[index] += np.average(loss_N, weights=held_weights) / len(folds)
    strength = STRENGTHS[int(losses.argmin())] if folds else DEFAULT_STRENGTH
    rows = np.arange(len(labels)) if refit is None else refit
    standardiser = Standardiser.of(features[rows])
    logistic = fit_logistic(
        standardiser(features[rows]), labels[rows], task, classes=classes, strength=strength, weights=weights(rows)
    )
    held_out_loss = dict(zip(STRENGTHS, losses.tolist(), strict=True)) if folds else {}
    return Selection(standardiser, logistic, strength, held_out_loss)
