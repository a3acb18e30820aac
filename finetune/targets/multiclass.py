"""One of several classes: a softmax."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from data_shards.support.errors import DataError
from data_shards.vocabulary import Task
from finetune.scores.metrics import accuracy, auc, balanced_accuracy
from finetune.targets.base import Affine, ClassTarget, Metric, register_target, shifted
from finetune.targets.logistic import logistic_path


@register_target
class MulticlassTarget(ClassTarget):
    """One of two or more classes.

    Raises:
        DataError: there are fewer than two classes.
    """

    task = Task.multiclass

    def __init__(self, classes: Sequence[str]) -> None:
        super().__init__(classes)
        if len(self.classes) < 2:
            raise DataError(f"a multiclass target has 2 classes or more, found {len(self.classes)}")

    @property
    def outputs(self) -> int:
        """One logit per class."""
        return len(self.classes)

    def loss(self, logits_NK: Tensor, values: Tensor) -> Tensor:
        """Cross-entropy, written out as that of two classes is."""
        return logits_NK.logsumexp(dim=1) - logits_NK.gather(1, values[:, None])[:, 0]

    def log_scores(self, logits_NK: Tensor, offset_C: Tensor | None = None) -> Tensor:
        """Log softmax."""
        return shifted(logits_NK.log_softmax(dim=1), offset_C)

    def linear_path(
        self,
        features_ND: np.ndarray,
        labels_NL: np.ndarray,
        strengths: Sequence[float],
        weights_N: np.ndarray | None,
        *,
        rough: bool = False,
    ) -> list[Affine]:
        """Multinomial logistic regression."""
        self._require_all(labels_NL)
        path = logistic_path(features_ND, labels_NL[:, 0], strengths, weights_N, rough=rough)
        if len(self.classes) == 2:  # one column from scikit-learn, as two of a softmax with the same probabilities
            path = [
                Affine(np.concatenate([-f.weight_KD, f.weight_KD]) / 2, np.concatenate([-f.bias_K, f.bias_K]) / 2)
                for f in path
            ]
        return path

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """AUC and accuracy as ``medmnist.Evaluator``, and balanced accuracy."""
        return (
            Metric("auc", auc, "AUC", 0.5),
            Metric("acc", accuracy, "ACC"),
            Metric("balanced_acc", balanced_accuracy, "balanced ACC", 1 / len(self.classes)),
        )
