"""The strides whose mean gradient varies least."""

from __future__ import annotations

import numpy as np

from finetune.steppers.dba.selection.base import Selection, Strides, register_selection
from finetune.steppers.dba.subsets import Sums


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
        return strides.best(_spread)


def _spread(sums: Sums) -> np.ndarray:
    spread = sums.squares / sums.cases - sums.squared_sum / sums.cases**2
    found: np.ndarray = np.where(sums.strides > 1, spread / np.maximum(sums.strides - 1, 1), np.inf)
    return found
