"""The three scores of one set of predictions, each with its interval over test subjects."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from finetune.bootstrap import REPLICATES, Interval, interval
from finetune.labelled import LabelledImages
from finetune.metrics import accuracy, auc, balanced_accuracy, confusion_matrix


@dataclass(frozen=True)
class Scores:
    """Scores on a test split.

    Attributes:
        images: how many were scored.
        subjects: how many they are of; what the intervals resample.
        lacking: the classes that the split lacks, see :attr:`~finetune.labelled.LabelledImages.lacking`. The AUC is
            then NaN, and the balanced accuracy that of the classes that are there.
        auc: as ``medmnist.Evaluator``.
        acc: as ``medmnist.Evaluator``.
        balanced_acc: mean recall of the classes.
        confusion: image counts, true classes in rows; one table per label of a multi-label task.
    """

    images: int
    subjects: int
    lacking: tuple[str, ...]
    auc: Interval
    acc: Interval
    balanced_acc: Interval
    confusion: list[Any]

    @classmethod
    def of(
        cls, images: LabelledImages, probabilities: np.ndarray, *, seed: int = 0, replicates: int = REPLICATES
    ) -> Scores:
        """Score predictions.

        Args:
            images: what was predicted; their subjects are what is resampled.
            probabilities: ``(N, K)``.
            seed: of the bootstrap.
            replicates: of the bootstrap.
        """
        labels, task = images.labels, images.task
        auc_, acc, balanced = (
            interval(score, labels, probabilities, task, seed=seed, subjects=images.subjects, replicates=replicates)
            for score in (auc, accuracy, balanced_accuracy)
        )
        return cls(
            images=len(images),
            subjects=len(images) if images.subjects is None else len(np.unique(images.subjects)),
            lacking=images.lacking,
            auc=auc_,
            acc=acc,
            balanced_acc=balanced,
            confusion=confusion_matrix(labels, probabilities, task).tolist(),
        )

    @property
    def told(self) -> str:
        """The scores in words, for one line of output."""
        area = f"{self.auc.estimate:.3f} ({self.auc.low:.3f} to {self.auc.high:.3f})"
        if np.isnan(self.auc.low):
            area = f"{self.auc.estimate:.3f} (no interval: too few subjects to tell how far they differ)"
        if self.lacking:
            area = f"undefined: {', '.join(self.lacking)}"
        count = f"{self.images} images" + (f" of {self.subjects} subjects" if self.subjects < self.images else "")
        return f"AUC {area}, ACC {self.acc.estimate:.3f}, balanced ACC {self.balanced_acc.estimate:.3f}, {count}"

    def as_json(self) -> dict[str, Any]:
        """As plain JSON types."""
        return asdict(self)

    def as_columns(self) -> dict[str, float | int | str]:
        """As flat columns of a table."""
        columns: dict[str, float | int | str] = {
            "test_images": self.images,
            "test_subjects": self.subjects,
            "lacking": "; ".join(self.lacking),
        }
        for name, score in (("auc", self.auc), ("acc", self.acc), ("balanced_acc", self.balanced_acc)):
            columns |= {name: score.estimate, f"{name}_low": score.low, f"{name}_high": score.high}
        return columns
