"""How much each case says where subjects have several: every subject is worth the same."""

from __future__ import annotations

import numpy as np


def subject_weights(cases: int, subjects_N: np.ndarray | None) -> np.ndarray:
    """One divided by the number of cases of the subject, ``(N,)``; so they add up to the number of subjects.

    Args:
        cases: how many there are.
        subjects_N: the subject of each; each case is its own when left out.
    """
    if subjects_N is None:
        return np.ones(cases)
    _, index_N, count_S = np.unique(subjects_N, return_inverse=True, return_counts=True)
    weights_N: np.ndarray = 1 / count_S[index_N]
    return weights_N
