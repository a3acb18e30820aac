"""One of two classes: a single logit, the log odds of the second."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch.nn.functional as F
from torch import Tensor, stack

from data_shards.support.errors import DataError
from data_shards.vocabulary import Task
from finetune.scores.metrics import accuracy, auc, balanced_accuracy
from finetune.targets.base import SOFTPLUS_LINEAR, Affine, ClassTarget, Metric, register_target, shifted
from finetune.targets.logistic import logistic_path


@register_target
class BinaryTarget(ClassTarget):
    """One of two classes.

    Raises:
        DataError: there are not two classes.
    """

    task = Task.binary

    def __init__(self, classes: Sequence[str]) -> None:
        super().__init__(classes)
        if len(self.classes) != 2:
            raise DataError(f"a binary target has 2 classes, found {len(self.classes)}")

    @property
    def outputs(self) -> int:
        """The log odds of the second class."""
        return 1

    def loss(self, logits_NK: Tensor, values: Tensor) -> Tensor:
        """``softplus(z) - y z``.

        Written out, because on a few cases PyTorch's fused losses spend most of their time waking threads.
        """
        logit_N = logits_NK[:, 0]
        return F.softplus(logit_N, threshold=SOFTPLUS_LINEAR) - values.to(logits_NK.dtype) * logit_N

    def log_scores(self, logits_NK: Tensor, offset_C: Tensor | None = None) -> Tensor:
        """Log probabilities of both classes."""
        logit_N = logits_NK[:, 0]
        both = stack([F.logsigmoid(-logit_N), F.logsigmoid(logit_N)], dim=1)
        return shifted(both, offset_C)

    def decide(self, probabilities_NC: np.ndarray) -> np.ndarray:
        """The second class above one half, as ``medmnist.Evaluator`` decides."""
        return (probabilities_NC[:, 1:] > 0.5).astype(np.int64)

    def linear_path(
        self,
        features_ND: np.ndarray,
        labels_NL: np.ndarray,
        strengths: Sequence[float],
        weights_N: np.ndarray | None,
        *,
        rough: bool = False,
    ) -> list[Affine]:
        """Logistic regression."""
        self._require_all(labels_NL)
        return logistic_path(features_ND, labels_NL[:, 0], strengths, weights_N, rough=rough)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """AUC and accuracy as ``medmnist.Evaluator``, and balanced accuracy."""
        return (
            Metric("auc", auc, "AUC", 0.5),
            Metric("acc", accuracy, "ACC"),
            Metric("balanced_acc", balanced_accuracy, "balanced ACC", 0.5),
        )
