"""The layers equal those of spd_learn, forward and backward."""

import pytest
import torch
from spd_learn.functional import clamp_eigvals, matrix_log, matrix_sqrt
from torch import Tensor

from finetune.spd.eigen import logarithm, rectified, square_root


def matrices(condition: float) -> Tensor:
    """Positive definite float64 ``(3, 6, 6)``."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(3, 6, 6, dtype=torch.float64, generator=generator))[0]
    values = torch.logspace(0, -torch.log10(torch.tensor(condition)).item(), 6, dtype=torch.float64)
    return basis * values @ basis.mT


def both(function, matrix: Tensor) -> tuple[Tensor, Tensor]:
    """The value, and the symmetric part of the gradient of one weighting of it."""
    matrix = matrix.clone().requires_grad_()
    value = function(matrix)
    weight = torch.arange(36, dtype=torch.float64).reshape(6, 6)
    (value * (weight + weight.mT)).sum().backward()
    return value.detach(), (matrix.grad + matrix.grad.mT) / 2


@pytest.mark.parametrize("condition", [10.0, 1e3])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (logarithm, matrix_log.apply),
        (square_root, matrix_sqrt.apply),
        (
            lambda matrix: rectified(matrix, 0.05),
            lambda matrix: clamp_eigvals.apply(matrix, torch.tensor(0.05, dtype=torch.float64)),
        ),
    ],
)
def test_values_and_gradients(ours, theirs, condition: float) -> None:
    matrix = matrices(condition)
    for mine, other in zip(both(ours, matrix), both(theirs, matrix), strict=True):
        scale = max(1.0, float(other.abs().max()))
        assert (mine - other).abs().max() / scale < 1e-7
