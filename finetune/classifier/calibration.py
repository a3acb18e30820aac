"""Temperature scaling: one number that makes probabilities as sure as held-out cases show them to be.

Log probabilities are divided by a temperature and normalised again, log odds of labels are only divided (Guo et al., On
calibration of modern neural networks, ICML 2017, section 4.2). No order changes: neither the decision nor the AUC of a
binary target. A temperature above 1 takes certainty away. It is fitted on predictions of cases that the predicting
model did not see, such as those out of the folds of a cross-validation, and serves the model that is fitted to all.
That presumes that both are about as sure. A linear model with hardly any penalty, on about as many cases as features,
grows less sure with every further case; its folds then ask for too high a temperature. One whose penalty was chosen by
the log loss is near a temperature of 1 already.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from data_shards.support.errors import DataError
from finetune.classifier.subjects import subject_weights
from finetune.targets.base import ClassTarget, Target

LOWEST, HIGHEST = 0.05, 20.0
"""Beyond these a temperature says that the scores are not log probabilities, or that they tell the prevalence only."""

MINIMUM_SUBJECTS = 20
"""Below this the temperature stays 1: a dozen say little about how sure to be, and would move the prevalence."""

_TOLERANCE = 1e-8


def fit_temperature(
    target: Target,
    log_scores_NC: np.ndarray,
    labels_NL: np.ndarray,
    subjects_N: np.ndarray | None = None,
    *,
    smoothing: float | None = None,
) -> float:
    """The temperature with the smallest log loss on held-out cases, every subject worth the same.

    The loss is convex in ``1 / T`` (a log-sum-exp of a line, less a line), so what is found between :data:`LOWEST` and
    :data:`HIGHEST` is the minimum there. It is 1 for numbers, and with fewer than :data:`MINIMUM_SUBJECTS` subjects.

    Where every held-out case is right, that loss falls for ever as the temperature goes to 0. So with ``G`` subjects
    the right answer counts as ``1 - 1 / (G + 2)`` right, which is all that ``G`` of ``G`` say about the next (Platt,
    Probabilistic outputs for support vector machines, 1999, section 2.2). From hundreds of subjects on it hardly
    matters; with tens it gives a smaller loss on new cases than the plain minimum.

    Args:
        target: says what the scores are.
        log_scores_NC: of :meth:`Target.log_scores`, of models that did not see the case.
        labels_NL: the labels of the cases.
        subjects_N: the subject of each case; each case is its own when left out.
        smoothing: how wrong the right answer counts as; ``1 / (G + 2)`` when left out, 0 for the plain minimum.

    Raises:
        DataError: scores and labels do not fit together, or a score is NaN or infinite.
    """
    target.check(labels_NL)
    scores = torch.from_numpy(np.asarray(log_scores_NC, np.float64))
    if scores.ndim != 2 or len(scores) != len(labels_NL) or scores.shape[1] != len(target.classes):
        raise DataError(
            f"log scores of shape {tuple(scores.shape)} for {len(labels_NL)} cases and {len(target.classes)} columns"
        )
    if not scores.isfinite().all():
        raise DataError("log scores contain NaN or infinity")
    weights_N = subject_weights(len(labels_NL), subjects_N)
    if not target.classifies or weights_N.sum() < MINIMUM_SUBJECTS - 0.5:
        return 1.0
    weights = torch.from_numpy(weights_N / weights_N.sum())
    wrong = 1 / (float(weights_N.sum()) + 2) if smoothing is None else smoothing

    def loss(log_temperature: float) -> float:
        scaled = scaled_log_scores(target, scores, math.exp(log_temperature))
        right_N = target.log_loss(scaled, labels_NL)
        if isinstance(target, ClassTarget):
            others_N = (-scaled.sum(dim=1) - right_N) / (scaled.shape[1] - 1)
        else:
            others_N = target.log_loss(scaled, 1 - labels_NL)
        return float(weights @ ((1 - wrong) * right_N + wrong * others_N))

    bounds = (math.log(LOWEST), math.log(HIGHEST))
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": _TOLERANCE})
    return math.exp(float(found.x))


def scaled_log_scores(target: Target, log_scores_NC: Tensor, temperature: float) -> Tensor:
    """Log scores at a temperature, ``(N, C)``: of classes normalised again; those of numbers as they are."""
    if not target.classifies:
        return log_scores_NC
    scaled = log_scores_NC / temperature
    return scaled.log_softmax(dim=1) if isinstance(target, ClassTarget) else scaled
