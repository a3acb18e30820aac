"""The three scores of one set of predictions, each with its interval over test images."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from data_shards.vocabulary import Task
from finetune.bootstrap import REPLICATES, Interval, interval
from finetune.metrics import accuracy, auc, balanced_accuracy, confusion_matrix


@dataclass(frozen=True)
class Scores:
    """Scores on a test split.

    Attributes:
        images: how many were scored.
        auc: as ``medmnist.Evaluator``.
        acc: as ``medmnist.Evaluator``.
        balanced_acc: mean recall of the classes.
        confusion: image counts, true classes in rows; one table per label of a multi-label task.
    """

    images: int
    auc: Interval
    acc: Interval
    balanced_acc: Interval
    confusion: list[Any]

    @classmethod
    def of(
        cls, labels: np.ndarray, probabilities: np.ndarray, task: Task, *, seed: int = 0, replicates: int = REPLICATES
    ) -> Scores:
        """Score predictions.

        Args:
            labels: ``(N, L)``.
            probabilities: ``(N, K)``.
            task: how the labels are to be read.
            seed: of the bootstrap.
            replicates: of the bootstrap.
        """
        auc_, acc, balanced = (
            interval(score, labels, probabilities, task, seed=seed, replicates=replicates)
            for score in (auc, accuracy, balanced_accuracy)
        )
        return cls(len(labels), auc_, acc, balanced, confusion_matrix(labels, probabilities, task).tolist())

    def as_json(self) -> dict[str, Any]:
        """As plain JSON types."""
        return asdict(self)

    def as_columns(self) -> dict[str, float | int]:
        """As flat columns of a table."""
        columns: dict[str, float | int] = {"test_images": self.images}
        for name, score in (("auc", self.auc), ("acc", self.acc), ("balanced_acc", self.balanced_acc)):
            columns |= {name: score.estimate, f"{name}_low": score.low, f"{name}_high": score.high}
        return columns
