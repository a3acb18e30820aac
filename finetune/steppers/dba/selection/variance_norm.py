"""The strides whose mean gradient varies least."""

from __future__ import annotations

import numpy as np

from finetune.steppers.dba.selection.base import Selection, Strides, register_selection
from finetune.steppers.dba.subsets import best_subset


@register_selection("variance_norm")
class VarianceNorm(Selection):
    """``argmin_S || Var_{i in S}(g_i) ||_1 / |S|`` (our reading; the paper names the rule and gives no formula).

    ``Var`` is the unbiased variance of each number of the gradient. None is below 0, so its 1-norm is the trace of the
    covariance and known from inner products alone. ``i`` are strides: ``m_k`` the mean gradient over the ``n_k``
    cases of stride ``k``, of ``K_S`` chosen ones with ``n_S`` cases

    ``tr Var = K_S / (K_S - 1) (sum_k n_k/n_S ||m_k||^2 - ||sum_k n_k/n_S m_k||^2)``

    and it is divided by ``K_S``. One stride has no variance, and is taken only where no more can be.
    """

    def choose(self, strides: Strides, generator: np.random.Generator) -> np.ndarray:
        """Nothing is drawn."""
        del generator
        size_K = strides.size_K
        squares_K = strides.gram_KK.diagonal() / size_K

        def score(masks_MK: np.ndarray) -> np.ndarray:
            count_M = masks_MK.sum(axis=1)
            spread_M = masks_MK @ squares_K / (masks_MK @ size_K) - strides.squared_mean(masks_MK)
            return np.where(count_M > 1, spread_M / np.maximum(count_M - 1, 1), np.inf)

        return best_subset(len(size_K), score, strides.allowed)
