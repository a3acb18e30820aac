"""L2-regularised logistic regression along a path of strengths, in float64, by scikit-learn.

The objective is ``strength * sum_i w_i loss_i + ||W||^2 / 2``, intercepts free. Shape suffixes: N cases, D features, K
columns.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from data_shards.support.errors import DataError
from finetune.targets.base import Affine

_MAX_ITERATIONS = 20_000
_ROUGH_TOLERANCE = 1e-6
"""Probabilities are then within about 1e-3, which is enough to choose a strength by."""
_NEWTON_MOST = 150
"""Unknowns up to which a step with the exact Hessian pays."""
_GRADIENT_TOLERANCE = 1e-10
"""Of the mean loss. Probabilities are then within 1e-6 of those of the exact minimum."""


def logistic_path(
    features_ND: np.ndarray,
    label_N: np.ndarray,
    strengths: Sequence[float],
    weights_N: np.ndarray | None,
    *,
    rough: bool = False,
) -> list[Affine]:
    """The regression at each strength, every fit starting from the one before.

    Two classes give one column, the log odds of the second; more give a softmax over as many columns.

    Args:
        features_ND: standardised.
        label_N: class indices.
        strengths: inverse penalties.
        weights_N: of the cases; None for ones.
        rough: to three digits, for a choice of strength, in a fraction of the time.

    Raises:
        DataError: the features are not finite.
    """
    features_ND = finite(features_ND)
    if len(np.unique(label_N)) == 1:
        # A label that all cases have, or none, of several: only how often is known (with Jeffreys' prior).
        count = len(label_N)
        log_odds = np.log((label_N.sum() + 0.5) / (count - label_N.sum() + 0.5))
        return [Affine(np.zeros((1, features_ND.shape[1])), np.array([log_odds])) for _ in strengths]
    inputs_NR, basis_RD = in_span(features_ND)
    columns = len(np.unique(label_N))
    newton = inputs_NR.shape[1] * (columns if columns > 2 else 1) <= _NEWTON_MOST
    model = LogisticRegression(
        solver="newton-cholesky" if newton else "lbfgs",
        warm_start=True,
        tol=_ROUGH_TOLERANCE if rough else _GRADIENT_TOLERANCE,
        max_iter=_MAX_ITERATIONS,
    )
    path = []
    for strength in strengths:
        with warnings.catch_warnings():
            # Where rounding stops a step with the exact Hessian, scikit-learn goes on without it, and says so.
            warnings.filterwarnings("ignore", ".*resort to lbfgs", ConvergenceWarning)
            model.set_params(C=strength).fit(inputs_NR, label_N, sample_weight=weights_N)
        weight = model.coef_ if basis_RD is None else model.coef_ @ basis_RD
        path.append(Affine(weight.copy(), model.intercept_.copy()))
    return path


def in_span(features_ND: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """The cases in an orthonormal basis of what they span, where that has fewer dimensions than the features.

    A penalised optimum has no part outside of it, and the penalty is the same in every such basis; so it is the same
    model, of as many numbers as there are cases.

    Returns:
        ``(N, N)``, and the basis ``(N, D)``; the features themselves and None where nothing is gained.
    """
    if features_ND.shape[1] <= len(features_ND):
        return features_ND, None
    basis_DN, inputs_NN = np.linalg.qr(features_ND.T)
    return np.ascontiguousarray(inputs_NN.T), basis_DN.T


def finite(features: np.ndarray) -> np.ndarray:
    """The features in float64.

    Raises:
        DataError: one is NaN or infinite.
    """
    features_ND = np.asarray(features, dtype=np.float64)
    if not np.isfinite(features_ND).all():
        raise DataError("features contain NaN or infinity")
    return features_ND
