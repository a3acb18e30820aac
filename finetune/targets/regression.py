"""One number or several: a normal error of one spread, so least squares on standardised labels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import Ridge
from torch import Tensor

from data_shards.support.errors import DataError
from data_shards.vocabulary import Task
from finetune.scores.numbers import absolute_error, r_squared, spearman
from finetune.targets.base import Affine, Metric, Target, register_target
from finetune.targets.logistic import finite

_BINS = 5
"""Strata of a number: so many parts of equally many cases, so that folds have its whole range."""


@register_target
class RegressionTarget(Target):
    """Numbers.

    Args:
        classes: name of each number.
        center: mean of each in the given labels.
        scale: standard deviation of each there.
    """

    task = Task.regression
    classifies = False

    def __init__(
        self, classes: Sequence[str], center: Sequence[float] | None = None, scale: Sequence[float] | None = None
    ) -> None:
        super().__init__(classes)
        count = len(self.classes)
        self.center_L = np.zeros(count) if center is None else np.asarray(center, np.float64)
        self.scale_L = np.ones(count) if scale is None else np.asarray(scale, np.float64)
        if not count:
            raise DataError("a regression target has a number or more, found none")
        fits = self.center_L.shape == self.scale_L.shape == (count,)
        if not (
            fits and np.isfinite(self.center_L).all() and np.isfinite(self.scale_L).all() and (self.scale_L > 0).all()
        ):
            raise DataError(f"center and scale of a regression target are {count} finite numbers each, scales above 0")

    @property
    def outputs(self) -> int:
        """Each number, standardised."""
        return len(self.classes)

    def fitted_to(self, labels_NL: np.ndarray) -> RegressionTarget:
        """The target with mean and spread of these labels.

        Raises:
            DataError: a number is the same in all of them.
        """
        # Not by the standard deviation, which rounding keeps above 0 of equal numbers.
        constant = np.flatnonzero((labels_NL == labels_NL[:1]).all(axis=0))
        if len(constant):
            name = self.classes[int(constant[0])]
            raise DataError(f"{name}: the number is the same in all {len(labels_NL)} labelled cases")
        return RegressionTarget(self.classes, labels_NL.mean(axis=0).tolist(), labels_NL.std(axis=0).tolist())

    def check(self, labels_NL: np.ndarray) -> None:
        """Finite numbers."""
        if labels_NL.ndim != 2 or labels_NL.shape[1] != len(self.classes) or labels_NL.dtype.kind not in "iuf":
            raise DataError(
                f"labels of shape {labels_NL.shape} and type {labels_NL.dtype} for {len(self.classes)} numbers"
            )
        if not np.isfinite(labels_NL).all():
            raise DataError("a label is NaN or infinite")

    def values(self, labels_NL: np.ndarray) -> Tensor:
        """Standardised, float64 ``(N, L)``."""
        return torch.from_numpy((labels_NL - self.center_L) / self.scale_L)

    def loss(self, logits_NK: Tensor, values: Tensor) -> Tensor:
        """Half the squared error of the standardised numbers, summed."""
        return (logits_NK - values.to(logits_NK.dtype)).square().sum(dim=1) / 2

    def log_scores(self, logits_NK: Tensor, offset_C: Tensor | None = None) -> Tensor:
        """The numbers in their own units; float64, for they may be large beside their spread."""
        del offset_C
        scale_L, center_L = self._scale_and_center(logits_NK)
        return logits_NK * scale_L + center_L

    def probabilities(self, log_scores_NC: np.ndarray, temperature: float = 1.0) -> np.ndarray:
        """The numbers."""
        del temperature
        return np.asarray(log_scores_NC, np.float64)

    def log_of(self, probabilities_NC: np.ndarray) -> np.ndarray:
        """The numbers."""
        return probabilities_NC

    def log_loss(self, log_scores_NC: Tensor, labels_NL: np.ndarray) -> Tensor:
        """Half the squared error in units of the spread of the given labels."""
        scale_L, center_L = self._scale_and_center(log_scores_NC)
        return self.loss((log_scores_NC - center_L) / scale_L, self.values(labels_NL).to(log_scores_NC.device))

    def _scale_and_center(self, like: Tensor) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(self.scale_L).to(like.device), torch.from_numpy(self.center_L).to(like.device)

    def decide(self, probabilities_NC: np.ndarray) -> np.ndarray:
        """The numbers."""
        return probabilities_NC

    def strata(self, labels_NL: np.ndarray) -> np.ndarray:
        """Fifths of the first number."""
        rank_N = np.argsort(np.argsort(labels_NL[:, 0], kind="stable"), kind="stable")
        bins = max(1, min(_BINS, len(rank_N) // 2))
        return rank_N * bins // len(rank_N)

    def linear_path(
        self,
        features_ND: np.ndarray,
        labels_NL: np.ndarray,
        strengths: Sequence[float],
        weights_N: np.ndarray | None,
        *,
        rough: bool = False,
    ) -> list[Affine]:
        """Ridge regression: ``strength * sum_i w_i |y_i - x_i W - b|^2 / 2 + |W|^2 / 2``."""
        inputs, values = finite(features_ND), self.values(labels_NL).numpy()
        path = []
        for strength in strengths:
            fit = Ridge(alpha=1 / strength, solver="svd").fit(inputs, values, sample_weight=weights_N)
            path.append(Affine(np.atleast_2d(fit.coef_), np.atleast_1d(fit.intercept_)))
        return path

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Share of variance, mean absolute error, rank correlation."""
        return (
            Metric("r2", r_squared, "R2", 0.0, (-math.inf, 1.0)),
            Metric(
                "mae", absolute_error, "mean absolute error in units of the label", None, (0.0, math.inf), rises=False
            ),
            Metric("spearman", spearman, "rank correlation", 0.0, (-1.0, 1.0)),
        )

    def state(self) -> dict[str, Any]:
        """With center and scale."""
        return {**super().state(), "center": self.center_L.tolist(), "scale": self.scale_L.tolist()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> RegressionTarget:
        """Read back what :meth:`state` gave."""
        return cls(state["classes"], state["center"], state["scale"])
