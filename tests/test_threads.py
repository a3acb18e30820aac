"""Small decompositions have one thread, and what comes after them the threads that were there before."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from finetune.fit.tangent import TangentSpace
from finetune.spd.eigen import logarithm
from finetune.spd.vector import vectorised
from pretrain.health import embedding_spread
from pretrain.threads import one_thread


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def positive(cases: int) -> torch.Tensor:
    tokens = torch.randn(cases, 9, 4, dtype=torch.float64)
    return tokens.mT @ tokens


def test_the_threads_of_before_come_back_after_an_error_too() -> None:
    @one_thread()
    def failing() -> None:
        raise ValueError(torch.get_num_threads())

    with pytest.raises(ValueError, match="^1$"):
        failing()
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize(
    "solver, work",
    [
        ("eigh", lambda: logarithm(positive(5))),
        ("eigh", lambda: TangentSpace.of(vectorised(positive(5)).numpy(), channels=3)),
        ("svdvals", lambda: embedding_spread([torch.randn(6, 4)])),
    ],
)
def test_every_decomposition_of_the_product_has_one(
    monkeypatch: pytest.MonkeyPatch, solver: str, work: Callable[[], object]
) -> None:
    threads, solve = [], getattr(torch.linalg, solver)

    def watched(matrix: torch.Tensor):
        threads.append(torch.get_num_threads())
        return solve(matrix)

    monkeypatch.setattr(torch.linalg, solver, watched)
    work()
    assert threads and set(threads) == {1} and torch.get_num_threads() == 3
