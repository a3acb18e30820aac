"""What a reader gives: the samples that were asked for, column by column."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data_shards.support.errors import DataError


@dataclass(frozen=True)
class Records:
    """``B`` samples as they were read.

    Attributes:
        images: one array ``B,C,H,W`` (or ``B,C,D,H,W``) when all images of the split agree in shape and dtype, else a
            list of ``B`` arrays.
        label_BL: int64 or float64; a row is -1 or NaN where a sample is not labelled, ``L`` is 0 when none is.
        organ_B: vocabulary ids, int64.
        modality_B: vocabulary ids, int64.
        task_B: vocabulary ids, int64.
        spacing_mm_BA: float32, one column per spatial axis, NaN where not known.
        key_B: the keys, as an array of ASCII bytes.
        subject_B: the hashed subjects, as an array of ASCII bytes.
        attributes: float64 vectors of length ``B`` by name, NaN where not known.
    """

    images: np.ndarray | list[np.ndarray]
    label_BL: np.ndarray
    organ_B: np.ndarray
    modality_B: np.ndarray
    task_B: np.ndarray
    spacing_mm_BA: np.ndarray
    key_B: np.ndarray
    subject_B: np.ndarray
    attributes: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.organ_B)

    @property
    def stacked(self) -> np.ndarray:
        """The images as one array.

        Raises:
            DataError: they differ in shape or dtype.
        """
        if isinstance(self.images, list):
            raise DataError("images of different shapes or dtypes cannot be one array")
        return self.images
