"""Everything: the plain stepper, by which the others are measured."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from finetune.steppers.dba.selection.base import Selection, Strides, register_selection


@register_selection("all")
class Everything(Selection):
    """All strides."""

    takes_all: ClassVar[bool] = True

    def choose(self, strides: Strides, generator: np.random.Generator) -> np.ndarray:
        """Nothing is drawn."""
        del generator
        return np.ones(strides.gram_LKK.shape[:2], dtype=bool)
