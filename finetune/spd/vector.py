"""Symmetric matrices as vectors of the same length."""

from __future__ import annotations

import torch
from torch import Tensor


def vectorised(matrix: Tensor) -> Tensor:
    """The upper triangle ``(..., C (C + 1) / 2)``, times sqrt(2) off the diagonal, so inner products are Frobenius'."""
    rows, columns = torch.triu_indices(matrix.shape[-1], matrix.shape[-1], device=matrix.device)
    scale = torch.where(rows == columns, 1.0, matrix.new_tensor(2.0).sqrt())
    return matrix[..., rows, columns] * scale
