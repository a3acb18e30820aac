"""One of several classes in an order: a single score cut at rising thresholds.

The proportional odds model (McCullagh, Regression models for ordinal data, JRSS B 42, 1980, eq. 2.1): the log odds of a
class above ``k`` are ``s - theta_k`` with one score ``s`` and thresholds that rise with ``k``. Logits are these log
odds, one fewer than there are classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data_shards.support.errors import DataError
from data_shards.vocabulary import Task
from finetune.scores.metrics import accuracy, auc, balanced_accuracy
from finetune.scores.numbers import absolute_error_of_classes, quadratic_kappa
from finetune.targets.base import Affine, ClassTarget, Metric, register_target, shifted
from finetune.targets.logistic import finite
from finetune.targets.proportional_odds import proportional_odds_path

_SMALLEST_GAP = 1e-6
"""Between thresholds that are put somewhere."""


class Thresholds(nn.Module):
    """Log odds of being above each class, ``s - theta_k``, with thresholds that cannot cross.

    Args:
        count: how many thresholds; they begin one apart, around 0.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.tensor(-(count - 1) / 2))
        self.gaps = nn.Parameter(torch.full((count - 1,), float(np.log(np.expm1(1.0)))))

    @torch.no_grad()
    def set(self, theta_K: np.ndarray) -> None:
        """Put the thresholds where these rising numbers are."""
        gaps = np.maximum(np.diff(theta_K), _SMALLEST_GAP)
        self.first.fill_(float(theta_K[0]))
        self.gaps.copy_(torch.from_numpy(gaps + np.log(-np.expm1(-gaps))))  # the inverse of softplus

    def forward(self, score_N1: Tensor) -> Tensor:
        """``(N, count)``."""
        theta_K = self.first + F.pad(F.softplus(self.gaps).cumsum(0), (1, 0))
        return score_N1 - theta_K


@register_target
class OrdinalTarget(ClassTarget):
    """One of several classes, given in their order.

    Raises:
        DataError: there are fewer than two classes.
    """

    task = Task.ordinal

    def __init__(self, classes: Sequence[str]) -> None:
        super().__init__(classes)
        if len(self.classes) < 2:
            raise DataError(f"an ordinal target has 2 classes or more, found {len(self.classes)}")

    @property
    def outputs(self) -> int:
        """One score."""
        return 1

    @property
    def logits(self) -> int:
        """The log odds of being above each class but the last."""
        return len(self.classes) - 1

    def link(self) -> nn.Module:
        """The thresholds."""
        return Thresholds(self.logits)

    def into_link(self, link: nn.Module | None, affine: Affine) -> Affine:
        """Give the thresholds to the link; the score is left."""
        assert isinstance(link, Thresholds)
        link.set(-affine.bias_K)
        return Affine(affine.weight_KD[:1], np.zeros(1))

    def loss(self, logits_NK: Tensor, values: Tensor) -> Tensor:
        """Minus the log probability of the right class."""
        return -self.log_scores(logits_NK).gather(1, values[:, None])[:, 0]

    def log_scores(self, logits_NK: Tensor, offset_C: Tensor | None = None) -> Tensor:
        """Log probabilities of the classes.

        With ``a > b`` the log odds of being above the class before and above this one, the probability is ``sigmoid(a)
        - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a))``, which loses no digits.
        """
        above = F.pad(F.logsigmoid(logits_NK), (1, 0))  # of being above the class before: certain for the first
        not_above = F.pad(F.logsigmoid(-logits_NK), (0, 1))  # of not being above this one: certain for the last
        gap = (logits_NK[:, :-1] - logits_NK[:, 1:]).clamp(min=torch.finfo(logits_NK.dtype).tiny)
        between = F.pad(torch.log(-torch.expm1(-gap)), (1, 1))
        return shifted(above + not_above + between, offset_C)

    def linear_path(
        self,
        features_ND: np.ndarray,
        labels_NL: np.ndarray,
        strengths: Sequence[float],
        weights_N: np.ndarray | None,
        *,
        rough: bool = False,
    ) -> list[Affine]:
        """Proportional odds regression."""
        self._require_all(labels_NL if weights_N is None else labels_NL[weights_N > 0])
        return proportional_odds_path(finite(features_ND), labels_NL[:, 0], strengths, weights_N)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """AUC and accuracy as ``medmnist.Evaluator``, balanced accuracy; agreement and distance in classes."""
        return (
            Metric("auc", auc, "AUC", 0.5),
            Metric("acc", accuracy, "ACC"),
            Metric("balanced_acc", balanced_accuracy, "balanced ACC", 1 / len(self.classes)),
            Metric("kappa", quadratic_kappa, "weighted kappa", 0.0, (-1.0, 1.0)),
            Metric("mae", absolute_error_of_classes, "mean distance in classes", None, (0.0, math.inf), rises=False),
        )
