"""L2-regularised proportional odds regression along a path of strengths, in float64, by Newton's method.

With ``a`` the log odds of being above the class before and ``b < a`` those of being above this one, the likelihood of a
case is ``sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a))``. The log of each factor is concave in
weights and thresholds together, so there is one minimum; and as every class has a case, the loss grows without bound
where thresholds meet, so a search that begins with rising ones never has to leave them.

Shape suffixes: N cases, D features, P parameters that stand for them, K thresholds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.special import expit, log_expit

from finetune.targets.base import Affine

_MAX_STEPS = 200
_MAX_HALVINGS = 60
_DECREMENT = 1e-20
"""The search ends after the step whose square, by the curvature of the mean loss, is this: the next would be lost in
the rounding of a float64."""
_ROUNDED = 1e-12
"""A step whose square is below this is taken whole: what it gains is lost in the rounding of the objective."""


def proportional_odds_path(
    features_ND: np.ndarray, label_N: np.ndarray, strengths: Sequence[float], weights_N: np.ndarray | None
) -> list[Affine]:
    """The regression at each strength, every fit starting from the one before.

    The objective is ``strength * sum_i w_i loss_i + ||W||^2 / 2``, thresholds free.

    Args:
        features_ND: finite, float64.
        label_N: class indices in their order; every class has a case with a weight above 0.
        strengths: inverse penalties, above 0.
        weights_N: of the cases; None for ones.

    Returns:
        Log odds of being above each class but the last.
    """
    # Thresholds take up any shift, and the best weights lie in the span of the centred cases. So the problem is as
    # small as that, and what features repeat of each other does not make its curvature singular.
    mean_D = features_ND.mean(axis=0)
    _, singular_P, axes_PD = np.linalg.svd(features_ND - mean_D, full_matrices=False)
    beyond_rounding = singular_P.max() * max(features_ND.shape) * np.finfo(np.float64).eps
    axes_PD = axes_PD[singular_P > beyond_rounding]
    inputs_NP = (features_ND - mean_D) @ axes_PD.T
    case_weights_N = np.ones(len(label_N)) if weights_N is None else weights_N
    problem = _Problem(inputs_NP, label_N, case_weights_N / case_weights_N.sum())
    parameters = problem.start()
    path = []
    for strength in strengths:
        parameters = problem.minimise(parameters, penalty=1 / (strength * float(case_weights_N.sum())))
        weight_D = parameters[: problem.dim] @ axes_PD
        path.append(Affine(np.tile(weight_D, (problem.cuts, 1)), -parameters[problem.dim :] - mean_D @ weight_D))
    return path


@dataclass(frozen=True)
class _Problem:
    """Inputs, labels and weights that add up to 1. Parameters are weights, then thresholds: one vector ``(P + K,)``."""

    inputs_NP: np.ndarray
    label_N: np.ndarray
    weights_N: np.ndarray

    @property
    def dim(self) -> int:
        return int(self.inputs_NP.shape[1])

    @property
    def cuts(self) -> int:
        return int(self.label_N.max())

    def start(self) -> np.ndarray:
        """No weights, and thresholds at the log odds of the classes: the minimum under an endless penalty."""
        share_K = np.bincount(self.label_N, weights=self.weights_N).cumsum()[:-1]
        return np.concatenate([np.zeros(self.dim), np.log(share_K / (1 - share_K))])

    def minimise(self, parameters: np.ndarray, penalty: float) -> np.ndarray:
        """Newton's method with halved steps on the mean loss and ``penalty / 2`` times the squared weights."""
        value = self.objective(parameters, penalty)
        for _ in range(_MAX_STEPS):
            gradient, hessian = self.derivatives(parameters, penalty)
            unit = 1 / np.sqrt(np.diag(hessian))  # each parameter in units of its curvature, whatever its feature's
            step = -unit * cho_solve(cho_factor(hessian * np.outer(unit, unit)), unit * gradient)
            decrement = -float(gradient @ step)
            scale = 1.0
            for _ in range(_MAX_HALVINGS):
                tried = self.objective(parameters + scale * step, penalty)
                if tried <= value - 1e-4 * scale * decrement or (decrement < _ROUNDED and np.isfinite(tried)):
                    break
                scale /= 2
            parameters, value = parameters + scale * step, tried
            if decrement <= _DECREMENT:
                break
        return parameters

    def log_odds(self, parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of being above the class before, ``(N,)``, infinite for the first; and of being above its own."""
        score_N = self.inputs_NP @ parameters[: self.dim]
        theta = np.concatenate([[-np.inf], parameters[self.dim :], [np.inf]])
        return score_N - theta[self.label_N], score_N - theta[self.label_N + 1]

    def objective(self, parameters: np.ndarray, penalty: float) -> float:
        """Infinite where thresholds do not rise."""
        if (np.diff(parameters[self.dim :]) <= 0).any():
            return np.inf
        above_N, own_N = self.log_odds(parameters)
        log_likelihood_N = log_expit(above_N) + log_expit(-own_N) + np.log(-np.expm1(own_N - above_N))
        weight_P = parameters[: self.dim]
        return float(penalty * (weight_P @ weight_P) / 2 - self.weights_N @ log_likelihood_N)

    def derivatives(self, parameters: np.ndarray, penalty: float) -> tuple[np.ndarray, np.ndarray]:
        """Gradient and Hessian of the objective."""
        above_N, own_N = self.log_odds(parameters)
        # Of log(1 - exp(-gap)): the first derivative is r, the second -r (1 + r).
        ratio_N = np.exp(own_N - above_N) / -np.expm1(own_N - above_N)
        bend_N = self.weights_N * ratio_N * (1 + ratio_N)
        slope_above_N = -self.weights_N * (expit(-above_N) + ratio_N)
        slope_own_N = self.weights_N * (expit(own_N) + ratio_N)
        curve_above_N = self.weights_N * expit(above_N) * expit(-above_N)
        curve_own_N = self.weights_N * expit(own_N) * expit(-own_N)
        # Columns of the thresholds: minus one in the log odds that a threshold is of.
        below_NK, at_NK = (self.label_N[:, None] == np.arange(self.cuts) + shift for shift in (1, 0))
        gradient = np.concatenate(
            [
                self.inputs_NP.T @ (slope_above_N + slope_own_N) + penalty * parameters[: self.dim],
                -(slope_above_N @ below_NK) - slope_own_N @ at_NK,
            ]
        )
        size = self.dim + self.cuts
        hessian = np.empty((size, size))
        curve_N = curve_above_N + curve_own_N
        hessian[: self.dim, : self.dim] = (self.inputs_NP.T * curve_N) @ self.inputs_NP + penalty * np.eye(self.dim)
        cross_PK = -self.inputs_NP.T @ (curve_above_N[:, None] * below_NK + curve_own_N[:, None] * at_NK)
        hessian[: self.dim, self.dim :], hessian[self.dim :, : self.dim] = cross_PK, cross_PK.T
        between_KK = (below_NK.T * bend_N) @ at_NK
        hessian[self.dim :, self.dim :] = (
            np.diag((curve_above_N + bend_N) @ below_NK + (curve_own_N + bend_N) @ at_NK) - between_KK - between_KK.T
        )
        return gradient, hessian
