"""The strides whose mean gradient is the longest."""

from __future__ import annotations

import numpy as np

from finetune.steppers.dba.selection.base import Selection, Strides, register_selection


@register_selection("gradient_norm")
class GradientNorm(Selection):
    """``argmax_S || 1/|S| sum_{i in S} g_i ||`` (our reading; the paper names the rule and gives no formula).

    No mean is longer than the longest of what it is of, so what is chosen is hardly ever more than the fewest that may
    be.
    """

    def choose(self, strides: Strides, generator: np.random.Generator) -> np.ndarray:
        """Nothing is drawn."""
        del generator
        return strides.best(lambda sums: -sums.squared_sum / sums.cases**2)
