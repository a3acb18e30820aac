"""Strides at random: what a selection by gradients has to be better than."""

from __future__ import annotations

import numpy as np

from finetune.steppers.dba.selection.base import Selection, Strides, register_selection
from finetune.steppers.dba.subsets import random_subset


@register_selection("random")
class RandomSelection(Selection):
    """A number of strides between the bounds, then so many of them, each equally likely."""

    def choose(self, strides: Strides, generator: np.random.Generator) -> np.ndarray:
        """The gradients are not looked at."""
        layers = range(len(strides.gram_LKK))
        return np.stack([random_subset(strides.size_K, strides.least, strides.most, generator) for _ in layers])
