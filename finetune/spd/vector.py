"""Symmetric matrices as vectors of the same length."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def vectorised(matrix: Tensor) -> Tensor:
    """The upper triangle ``(..., C (C + 1) / 2)``, times sqrt(2) off the diagonal, so inner products are Frobenius'."""
    rows, columns = torch.triu_indices(matrix.shape[-1], matrix.shape[-1], device=matrix.device)
    return matrix[..., rows, columns] * _scale(rows, columns, matrix)


def matrices(vector: Tensor) -> Tensor:
    """The symmetric matrices ``(..., C, C)`` of which :func:`vectorised` made these."""
    size = (math.isqrt(8 * vector.shape[-1] + 1) - 1) // 2
    rows, columns = torch.triu_indices(size, size, device=vector.device)
    place_CC = torch.empty(size, size, dtype=torch.int64, device=vector.device)
    place_CC[rows, columns] = place_CC[columns, rows] = torch.arange(len(rows), device=vector.device)
    entries = vector / _scale(rows, columns, vector)
    return entries.index_select(-1, place_CC.flatten()).unflatten(-1, (size, size))


def _scale(rows: Tensor, columns: Tensor, like: Tensor) -> Tensor:
    return torch.where(rows == columns, 1.0, like.new_tensor(2.0).sqrt())
