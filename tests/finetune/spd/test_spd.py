"""Gradients at ties, orthonormality after many steps, Newton-Schulz, agreement with geoopt."""

import geoopt
import pytest
import torch

from finetune.spd.covariance import covariance, shrunk
from finetune.spd.eigen import inverse_square_root, logarithm, rectified, square_root
from finetune.spd.newton_schulz import newton_schulz
from finetune.spd.stiefel import ManifoldAdamW, orthonormal, retracted, tangent


def with_values(values: list[float]) -> torch.Tensor:
    torch.manual_seed(0)
    q = torch.linalg.qr(torch.randn(len(values), len(values), dtype=torch.float64))[0]
    return (q * torch.tensor(values, dtype=torch.float64)) @ q.T


@pytest.mark.parametrize("function", [logarithm, square_root, inverse_square_root])
@pytest.mark.parametrize("values", [[2.0, 2, 2, 5], [1.0, 1, 1, 1], [1e-3, 1.0, 30.0, 1e3]])
def test_gradients_equal_finite_differences_with_ties_and_condition_1e6(function, values) -> None:
    matrix = with_values(values).requires_grad_()
    eps = 1e-4 * min(values)
    assert torch.autograd.gradcheck(lambda x: function((x + x.T) / 2), matrix, eps=eps, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("values", [[0.0, 0.0, 2.0, 2.0], [1.0, 1, 1, 1]])
def test_rectified_gradient_with_ties_and_deficient_rank(values) -> None:
    matrix = with_values(values).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: rectified((x + x.T) / 2, 1e-2), matrix, eps=1e-6, atol=1e-5)


def test_step_equals_geoopt() -> None:
    torch.manual_seed(0)
    weight, grad = orthonormal(9, 4).double(), torch.randn(9, 4, dtype=torch.float64)
    weight = retracted(weight)
    other = geoopt.EuclideanStiefel()
    assert torch.allclose(tangent(weight, grad), other.egrad2rgrad(weight, grad), atol=1e-6)
    step = -0.1 * tangent(weight, grad)
    assert torch.allclose(retracted(weight + step), other.retr(weight, step), atol=1e-6)


def test_columns_stay_orthonormal_over_10000_steps() -> None:
    torch.manual_seed(0)
    weight = torch.nn.Parameter(orthonormal(8, 4))
    optimizer = ManifoldAdamW([{"params": [weight], "manifold": "stiefel", "lr": 0.01}])
    for _ in range(10_000):
        weight.grad = torch.randn_like(weight)
        optimizer.step()
    assert (weight.T @ weight - torch.eye(4)).norm() < 1e-5


def test_newton_schulz_reaches_the_root_with_enough_iterations() -> None:
    for condition, iterations in ((10, 11), (1e3, 15), (1e5, 20)):
        matrix = with_values(torch.logspace(0, float(torch.tensor(condition).log10()), 64).tolist())
        exact = square_root(matrix)
        assert (newton_schulz(matrix, iterations) - exact).norm() / exact.norm() <= 1e-6
        assert (newton_schulz(matrix, 5) - exact).norm() / exact.norm() > 0.1


def test_covariance_ignores_padding_and_order_and_constant_tokens_are_finite() -> None:
    torch.manual_seed(0)
    tokens = torch.randn(2, 7, 3, dtype=torch.float64)
    padded = torch.cat([tokens.flip(1), torch.full((2, 2, 3), torch.nan, dtype=torch.float64)], 1)
    mask = torch.arange(9).expand(2, 9) < 7
    assert torch.allclose(covariance(tokens), covariance(padded, mask))
    assert torch.allclose(covariance(tokens)[0], torch.cov(tokens[0].T, correction=0))
    constant = torch.ones(1, 5, 3, requires_grad=True)
    logarithm(shrunk(covariance(constant), 0.1)).sum().backward()
    assert constant.grad is not None and constant.grad.isfinite().all()


@pytest.mark.parametrize(("condition", "after_3", "after_5"), [(1, 0.56, 0.24), (3, 0.41, 0.19), (5, 0.33, 0.15)])
def test_newton_schulz_is_not_yet_the_root_after_five_steps(condition, after_3, after_5) -> None:
    matrix = torch.diag(torch.logspace(0, condition, 64, dtype=torch.float64))
    errors = [float((newton_schulz(matrix, k) - matrix.sqrt()).norm() / matrix.sqrt().norm()) for k in (3, 5)]
    assert errors == pytest.approx([after_3, after_5], abs=0.006)
