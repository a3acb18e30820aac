"""Functions of symmetric matrices by their eigenvalues, with the exact gradient (Daleckii and Krein).

The gradient of ``U f(L) U'`` is ``U (K o (U' sym(G) U)) U'`` with ``K_ij = (f(l_i) - f(l_j)) / (l_i - l_j)`` and
``f'(l)`` where eigenvalues are equal, which they often are after :func:`rectified`. There the automatic gradient of
``eigh`` is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Scalar = Callable[[Tensor], Tensor]


class _EigenFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, matrix: Tensor, function: Scalar, derivative: Scalar) -> Tensor:
        values, vectors = torch.linalg.eigh(matrix)
        mapped = function(values)
        ctx.save_for_backward(values, vectors, mapped, derivative(values))
        return (vectors * mapped[..., None, :]) @ vectors.mT

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        values, vectors, mapped, slopes = ctx.saved_tensors
        gaps = values[..., :, None] - values[..., None, :]
        # Below this gap the difference of two rounded values says less than the mean of the two slopes, whose error
        # is of the second order in the gap.
        size = torch.maximum(values[..., :, None].abs(), values[..., None, :].abs())
        tied = gaps.abs() <= size * torch.finfo(values.dtype).eps ** 0.5 * 0.1
        means = (slopes[..., :, None] + slopes[..., None, :]) / 2
        quotients = (mapped[..., :, None] - mapped[..., None, :]) / torch.where(tied, torch.ones_like(gaps), gaps)
        kernel = torch.where(tied, means, quotients)
        grad = (grads[0] + grads[0].mT) / 2
        return vectors @ (kernel * (vectors.mT @ grad @ vectors)) @ vectors.mT, None, None


def eigen_function(matrix: Tensor, function: Scalar, derivative: Scalar) -> Tensor:
    """``U f(L) U'`` of symmetric matrices ``(..., C, C)``, in float32 at least.

    Args:
        matrix: symmetric matrices; what is not symmetric in them is ignored.
        function: f, of eigenvalues ``(..., C)``.
        derivative: f' of the same.
    """
    with torch.autocast(matrix.device.type, enabled=False):
        matrix = matrix if matrix.dtype == torch.float64 else matrix.float()
        mapped: Tensor = _EigenFunction.apply((matrix + matrix.mT) / 2, function, derivative)
        return mapped


def rectified(matrix: Tensor, floor: float = 1e-4) -> Tensor:
    """ReEig: eigenvalues below the floor are raised to it (Huang and Van Gool, AAAI 2017, section 3.2)."""
    return eigen_function(matrix, lambda x: x.clamp(min=floor), lambda x: (x > floor).to(x.dtype))


def logarithm(matrix: Tensor, floor: float = 1e-12) -> Tensor:
    """LogEig: the matrix logarithm; eigenvalues below the floor count as the floor and get no gradient."""
    return eigen_function(matrix, lambda x: x.clamp(min=floor).log(), lambda x: (x > floor) / x.clamp(min=floor))


def power(matrix: Tensor, exponent: float, floor: float = 1e-12) -> Tensor:
    """A power of a matrix; eigenvalues below the floor count as the floor and get no gradient."""
    return eigen_function(
        matrix,
        lambda x: x.clamp(min=floor) ** exponent,
        lambda x: (x > floor) * exponent * x.clamp(min=floor) ** (exponent - 1),
    )


def square_root(matrix: Tensor, floor: float = 1e-12) -> Tensor:
    """The symmetric square root."""
    return power(matrix, 0.5, floor)


def inverse_square_root(matrix: Tensor, floor: float = 1e-12) -> Tensor:
    """The inverse of the symmetric square root."""
    return power(matrix, -0.5, floor)
