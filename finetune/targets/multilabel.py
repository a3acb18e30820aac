"""Several labels that a case may carry or not, each by itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from data_shards.support.errors import DataError
from data_shards.vocabulary import Task
from finetune.scores.metrics import THRESHOLD, accuracy, auc, balanced_accuracy
from finetune.splits import strata
from finetune.targets.base import SOFTPLUS_LINEAR, Affine, Metric, Target, register_target
from finetune.targets.logistic import logistic_path


@register_target
class MultilabelTarget(Target):
    """0 or 1 for each of several labels.

    A case carries several labels, and no weight of a case balances them all; so there are none.
    """

    task = Task.multilabel

    @property
    def outputs(self) -> int:
        """The log odds of each label."""
        return len(self.classes)

    def check(self, labels_NL: np.ndarray) -> None:
        """0 or 1 per label."""
        if labels_NL.ndim != 2 or labels_NL.shape[1] != len(self.classes):
            raise DataError(f"labels of shape {labels_NL.shape} for {len(self.classes)} labels a case may have")
        strange = ~np.isin(labels_NL, (0, 1))
        if strange.any():
            case, label = np.argwhere(strange)[0]
            raise DataError(f"label {self.classes[label]!r} is 0 or 1, found {labels_NL[case, label]}")

    def values(self, labels_NL: np.ndarray) -> Tensor:
        """Float64 ``(N, L)``."""
        return torch.from_numpy(labels_NL.astype(np.float64))

    def loss(self, logits_NK: Tensor, values: Tensor) -> Tensor:
        """Binary cross-entropy, summed over the labels."""
        surprise = F.softplus(logits_NK, threshold=SOFTPLUS_LINEAR) - values.to(logits_NK.dtype) * logits_NK
        return surprise.sum(dim=1)

    def log_scores(self, logits_NK: Tensor, offset_C: Tensor | None = None) -> Tensor:
        """The log odds."""
        return logits_NK if offset_C is None else logits_NK + offset_C.to(logits_NK)

    def probabilities(self, log_scores_NC: np.ndarray, temperature: float = 1.0) -> np.ndarray:
        """Of each label alone."""
        found: np.ndarray = (torch.from_numpy(np.asarray(log_scores_NC, np.float64)) / temperature).sigmoid().numpy()
        return found

    def log_of(self, probabilities_NC: np.ndarray) -> np.ndarray:
        """The log odds; of 0 and 1 those of the nearest numbers that have any."""
        tiny = np.finfo(np.float64).tiny
        odds: np.ndarray = np.log(np.maximum(probabilities_NC, tiny)) - np.log(np.maximum(1 - probabilities_NC, tiny))
        return odds

    def log_loss(self, log_scores_NC: Tensor, labels_NL: np.ndarray) -> Tensor:
        """Summed over the labels."""
        return self.loss(log_scores_NC, self.values(labels_NL).to(log_scores_NC.device))

    def decide(self, probabilities_NC: np.ndarray) -> np.ndarray:
        """Above one half."""
        return (probabilities_NC > THRESHOLD).astype(np.int64)

    def strata(self, labels_NL: np.ndarray) -> np.ndarray:
        """The rarest label of a case plus one; 0 for none."""
        return strata(labels_NL, Task.multilabel)

    def linear_path(
        self,
        features_ND: np.ndarray,
        labels_NL: np.ndarray,
        strengths: Sequence[float],
        weights_N: np.ndarray | None,
        *,
        rough: bool = False,
    ) -> list[Affine]:
        """A logistic regression for each label."""
        paths = [logistic_path(features_ND, label_N, strengths, weights_N, rough=rough) for label_N in labels_NL.T]
        return [
            Affine(np.concatenate([fit.weight_KD for fit in fits]), np.concatenate([fit.bias_K for fit in fits]))
            for fits in zip(*paths, strict=True)
        ]

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Means over the labels."""
        return (
            Metric("auc", auc, "AUC", 0.5),
            Metric("acc", accuracy, "ACC"),
            Metric("balanced_acc", balanced_accuracy, "balanced ACC", 0.5),
        )

    def carried(self, labels_NL: np.ndarray) -> np.ndarray:
        """Whether a case has each label."""
        has: np.ndarray = labels_NL == 1
        return has
