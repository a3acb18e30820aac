"""Distance and mean of positive definite matrices under the affine-invariant metric.

Moakher, A differential geometric approach to the geometric mean of symmetric positive-definite matrices (SIAM J. Matrix
Anal. Appl. 26, 2005).
"""

from __future__ import annotations

import torch
from torch import Tensor

from finetune.spd.eigen import eigen_function, inverse_square_root, logarithm, square_root


def airm_distance(first: Tensor, second: Tensor) -> Tensor:
    """``||log(A^-1/2 B A^-1/2)||_F`` of matrices ``(..., C, C)``; the same for ``W' A W`` and ``W' B W``."""
    root = inverse_square_root(first)
    distance: Tensor = torch.linalg.matrix_norm(logarithm(root @ second @ root))
    return distance


def airm_mean(matrices_NCC: Tensor, tolerance: float = 1e-9, most: int = 50) -> Tensor:
    """The matrix ``(C, C)`` whose squared distances to all of them have the least sum.

    Karcher's flow: the mean of the logarithms at where it stands is added there; the step is halved where that mean
    grows, as it may do where matrices lie far apart.

    Args:
        matrices_NCC: positive definite; float64 is advised.
        tolerance: it stops where the norm of that mean is below.
        most: steps.
    """
    mean_CC, step, norm_before = matrices_NCC.mean(dim=0), 1.0, float("inf")
    for _ in range(most):
        root, inverse = square_root(mean_CC), inverse_square_root(mean_CC)
        direction = logarithm(inverse @ matrices_NCC @ inverse).mean(dim=0)
        norm = float(torch.linalg.matrix_norm(direction))
        if norm < tolerance:
            break
        step, norm_before = step if norm < norm_before else step / 2, norm
        moved = root @ eigen_function(step * direction, torch.exp, torch.exp) @ root
        mean_CC = (moved + moved.mT) / 2
    return mean_CC
