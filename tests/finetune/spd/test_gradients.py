"""Gradients where they are hard: deficient rank, condition 1e6, ties that are none yet, any scale."""

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from finetune.spd.covariance import covariance, shrunk
from finetune.spd.eigen import exponential, inverse_square_root, logarithm, rectified, square_root
from finetune.spd.newton_schulz import newton_schulz

FUNCTIONS = {
    "log": logarithm,
    "root": square_root,
    "inverse root": inverse_square_root,
    "rectified": lambda matrix: rectified(matrix, 0.5),
}


def with_values(values: list[float]) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(len(values), len(values), dtype=torch.float64, generator=generator))[0]
    return (basis * torch.tensor(values, dtype=torch.float64)) @ basis.mT


def few_tokens() -> Tensor:
    """Three tokens of six channels, so covariances are of rank two."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 3, 6, dtype=torch.float64, generator=generator).requires_grad_()


@pytest.mark.parametrize("function", [logarithm, square_root, inverse_square_root, lambda x: newton_schulz(x, 20)])
def test_deficient_rank_through_the_shrinkage(function) -> None:
    share = torch.tensor([0.1], dtype=torch.float64, requires_grad=True)
    weights = torch.tensor([[1.0, 2.0, 0.0], [1.0, 1.0, 1.0]])
    tokens = few_tokens()
    assert torch.linalg.matrix_rank(covariance(tokens)).tolist() == [2, 2]
    assert gradcheck(lambda x, a: function(shrunk(covariance(x), a)), (tokens, share))
    assert gradcheck(lambda x, a: function(shrunk(covariance(x, weights), a)), (tokens, share))


@pytest.mark.parametrize("function", [logarithm, square_root, inverse_square_root])
def test_deficient_rank_through_the_floor(function) -> None:
    tokens = few_tokens()
    assert gradcheck(lambda x: function(rectified(covariance(x), 1e-2)), tokens)
    assert gradcheck(lambda x: function(covariance(x), floor=1e-2), tokens)


@pytest.mark.parametrize("floor", [1e-9, 3e-3, 0.5])
@pytest.mark.parametrize("values", [[1e-6, 1e-4, 1e-2, 1.0], [1e-6, 1e-6, 1.0, 1.0]])
def test_rectified_at_condition_1e6(values: list[float], floor: float) -> None:
    matrix = with_values(values).requires_grad_()
    assert gradcheck(lambda x: rectified((x + x.mT) / 2, floor), matrix, eps=1e-7, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("gap", [0.0, 1e-7, 3e-6, 4e-5, 1e-3, 0.1])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_near_ties_in_float32_have_the_gradient_of_float64(name: str, gap: float) -> None:
    # Eigenvalues as small as 1e-3, whose logarithms are rounded more coarsely than they differ.
    matrix = with_values([1e-3, 1e-3 * (1 + gap), 1.0, 1.0 + gap, 3.0]).float()
    weight = torch.randn(5, 5, generator=torch.Generator().manual_seed(2))
    grads = []
    for each in (matrix, matrix.double()):
        leaf = each.clone().requires_grad_()
        (FUNCTIONS[name](leaf) * weight).sum().backward()
        grads.append(leaf.grad.double())
    found, expected = grads
    # What float32 does to the eigenvalues themselves moves the gradient by 1e-7 beside 1e-3.
    assert found.isfinite().all() and (found - expected).norm() <= 5e-4 * expected.norm()


@pytest.mark.parametrize("name", ["log", "root", "inverse root"])
@pytest.mark.parametrize("scale", [2.0**-40, 2.0**40])
@pytest.mark.parametrize("values", [[1.0, 1.0, 2.0], [0.0, 0.0, 1.0]])
def test_of_another_scale_it_is_the_same_function(name: str, scale: float, values: list[float]) -> None:
    matrix = with_values(values).float()
    here, there = FUNCTIONS[name](matrix), FUNCTIONS[name](scale * matrix)
    if name == "log":
        expected = here + torch.eye(3) * torch.tensor(scale).log()
    else:
        expected = here * scale ** (0.5 if name == "root" else -0.5)
    torch.testing.assert_close(there, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_zeros_are_finite(name: str) -> None:
    matrix = torch.zeros(4, 4, requires_grad=True)
    FUNCTIONS[name](matrix).sum().backward()
    assert matrix.grad is not None and not matrix.grad.any()


@pytest.mark.parametrize("values", [[-3.0, -3.0, 0.0, 2.0], [-1.0, -1.0 + 1e-7, 1.0, 1.0]])
def test_the_exponential_is_that_of_torch_and_has_its_gradient(values: list[float]) -> None:
    matrix = with_values(values).requires_grad_()
    torch.testing.assert_close(exponential(matrix), torch.linalg.matrix_exp(matrix), rtol=1e-10, atol=1e-10)
    assert gradcheck(lambda x: exponential((x + x.mT) / 2), matrix)
