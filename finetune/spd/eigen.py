"""Functions of symmetric matrices by their eigenvalues, with the exact gradient (Daleckii and Krein).

The gradient of ``U f(L) U'`` is ``U (K o (U' sym(G) U)) U'`` with the divided differences ``K_ij = (f(l_i) - f(l_j)) /
(l_i - l_j)``, and ``f'(l)`` where eigenvalues are equal, which they often are after :func:`rectified`; there the
automatic gradient of ``eigh`` is wrong. The divided differences are written in forms in which nothing cancels, such as
``1 / (sqrt(a) + sqrt(b))``, so eigenvalues that are nearly equal need no threshold and cost no precision.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pretrain.threads import one_thread

Scalar = Callable[[Tensor], Tensor]
Quotient = Callable[[Tensor, Tensor], Tensor]


class _EigenFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, matrix: Tensor, function: Scalar, quotient: Quotient, floor: float | None) -> Tensor:
        with one_thread():
            values, vectors = torch.linalg.eigh(matrix)
        raised = values.clamp(min=_rounding(values) if floor is None else floor)
        ctx.save_for_backward(values, raised, vectors)
        ctx.quotient = quotient
        return (vectors * function(raised)[..., None, :]) @ vectors.mT

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        values, raised, vectors = ctx.saved_tensors
        kernel = ctx.quotient(raised[..., :, None], raised[..., None, :])
        if not torch.equal(values, raised):
            kernel = kernel * _raised_quotient(values, raised)
        grad = (grads[0] + grads[0].mT) / 2
        return vectors @ (kernel * (vectors.mT @ grad @ vectors)) @ vectors.mT, None, None, None


def _rounding(values: Tensor) -> Tensor:
    """How far rounding moves eigenvalues ``(..., C)`` of such matrices, ``(..., 1)``; above 0 also where all are 0."""
    precision = torch.finfo(values.dtype)
    largest = values.abs().amax(dim=-1, keepdim=True)
    return (largest * values.shape[-1] * precision.eps).clamp(min=precision.tiny**0.5)


def _raised_quotient(values: Tensor, raised: Tensor) -> Tensor:
    """Divided differences of raising to a floor: the chain rule holds for them as for derivatives."""
    gaps = values[..., :, None] - values[..., None, :]
    tied = gaps == 0
    differences = raised[..., :, None] - raised[..., None, :]
    return torch.where(tied, (raised == values)[..., None, :], differences / gaps.masked_fill(tied, 1.0))


def eigen_function(matrix: Tensor, function: Scalar, quotient: Quotient, floor: float | None = None) -> Tensor:
    """``U f(L) U'`` of symmetric matrices ``(..., C, C)``, in float32 at least.

    Args:
        matrix: symmetric matrices; of their two halves the lower one is read, and the gradient is symmetric.
        function: f, of eigenvalues ``(..., C)``.
        quotient: the divided differences of f, of two broadcast tensors of eigenvalues; f' where they are equal.
        floor: eigenvalues below it count as it and get no gradient. By default what is no more than rounding beside
            the largest, which is all that is left of an eigenvalue of 0.
    """
    with torch.autocast(matrix.device.type, enabled=False):
        matrix = matrix if matrix.dtype == torch.float64 else matrix.float()
        mapped: Tensor = _EigenFunction.apply(matrix, function, quotient, floor)
        return mapped


def rectified(matrix: Tensor, floor: float = 1e-4) -> Tensor:
    """ReEig: eigenvalues below the floor are raised to it (Huang and Van Gool, AAAI 2017, section 3.2).

    The floor is not relative to the largest eigenvalue: it is of the layer, as the bias of a rectified unit. Tokens are
    to be of about unit variance.
    """
    return eigen_function(matrix, lambda x: x, lambda a, _: torch.ones_like(a), floor)


def logarithm(matrix: Tensor, floor: float | None = None) -> Tensor:
    """LogEig: the matrix logarithm; ``floor`` as of :func:`eigen_function`, and likewise below."""
    return eigen_function(matrix, torch.log, _log_quotient, floor)


def exponential(matrix: Tensor) -> Tensor:
    """The matrix exponential, of any symmetric matrix."""
    return eigen_function(matrix, torch.exp, _exp_quotient, -torch.inf)


def square_root(matrix: Tensor, floor: float | None = None) -> Tensor:
    """The symmetric square root."""
    return eigen_function(matrix, torch.sqrt, lambda a, b: 1 / (a.sqrt() + b.sqrt()), floor)


def inverse_square_root(matrix: Tensor, floor: float | None = None) -> Tensor:
    """The inverse of the symmetric square root."""

    def quotient(a: Tensor, b: Tensor) -> Tensor:
        root_a, root_b = a.sqrt(), b.sqrt()
        return -1 / (root_a * root_b * (root_a + root_b))

    return eigen_function(matrix, torch.rsqrt, quotient, floor)


def _log_quotient(a: Tensor, b: Tensor) -> Tensor:
    gaps, low = (a - b).abs(), torch.minimum(a, b)
    tied = gaps == 0
    return torch.where(tied, 1 / low, torch.log1p(gaps / low) / gaps.masked_fill(tied, 1.0))


def _exp_quotient(a: Tensor, b: Tensor) -> Tensor:
    gaps, low = (a - b).abs(), torch.minimum(a, b)
    tied = gaps == 0
    return low.exp() * torch.where(tied, 1.0, torch.expm1(gaps) / gaps.masked_fill(tied, 1.0))
