from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from torch import Tensor, nn

from data_shards.support.errors import DataError
from finetune.mil.log_sum_exp import GeneralisedLogSumExp, soft_extreme
from finetune.mil.pooling import (
    GatedAttention,
    MaxMinPooling,
    MaxPooling,
    MeanPooling,
    TopBottomPooling,
    weighted_sum,
)


class AttentionOverScores(nn.Module):
    """Gated attention in the shape of the others."""

    def __init__(self, gated: bool = True) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.attention = GatedAttention(3, 5, gated=gated).double()

    def forward(self, scores_BHO: Tensor, mask_BH: Tensor | None = None) -> Tensor:
        return self.attention(scores_BHO, mask_BH)


POOLINGS: dict[str, Callable[[], nn.Module]] = {
    "max": MaxPooling,
    "mean": MeanPooling,
    "max_min": MaxMinPooling,
    "log_sum_exp": lambda: GeneralisedLogSumExp((2.0, -1.0)).double(),
    "log_sum_exp near the mean": lambda: GeneralisedLogSumExp((1e-9, -1e-9)).double(),
    "top": lambda: TopBottomPooling(0.3),
    "top_bottom": lambda: TopBottomPooling(2, 0.4, 0.7),
    "attention": AttentionOverScores,
    "attention without gate": lambda: AttentionOverScores(gated=False),
}
every_pooling = pytest.mark.parametrize("name", POOLINGS)


def bags(sizes: tuple[int, ...], seed: int = 0, outputs: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(size, outputs, generator=generator, dtype=torch.float64) for size in sizes]


def padded(each: list[Tensor], length: int, filler: float) -> tuple[Tensor, Tensor]:
    values = torch.full((len(each), length, each[0].shape[1]), filler, dtype=torch.float64)
    mask = torch.zeros(len(each), length, dtype=torch.bool)
    for row, bag in enumerate(each):
        values[row, : len(bag)], mask[row, : len(bag)] = bag, True
    return values, mask


@every_pooling
@pytest.mark.parametrize("filler", [0.0, 1e6, math.nan])
def test_padding_changes_nothing_whatever_stands_in_it(name: str, filler: float) -> None:
    pooling, each = POOLINGS[name](), bags((1, 4, 7))
    alone = torch.cat([pooling(bag[None]) for bag in each])
    torch.testing.assert_close(pooling(*padded(each, 9, filler)), alone, rtol=1e-12, atol=1e-12)


@every_pooling
@pytest.mark.parametrize("filler", [1.0, math.nan])
def test_padding_gets_no_gradient_and_spoils_none(name: str, filler: float) -> None:
    pooling = POOLINGS[name]()
    values, mask = padded(bags((2, 5)), 6, filler)
    values.requires_grad_()
    pooling(values, mask).square().sum().backward()
    assert values.grad.isfinite().all() and not values.grad[~mask].any() and values.grad[mask].any()
    assert all(weight.grad.isfinite().all() for weight in pooling.parameters() if weight.grad is not None)


@every_pooling
def test_the_order_of_instances_changes_nothing(name: str) -> None:
    pooling, (bag,) = POOLINGS[name](), bags((8,))
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(pooling(bag[order][None]), pooling(bag[None]), rtol=1e-12, atol=1e-12)


@every_pooling
def test_the_gradient_is_that_of_finite_differences(name: str) -> None:
    values, mask = padded(bags((3, 5), seed=2), 5, 0.5)
    assert torch.autograd.gradcheck(lambda scores: POOLINGS[name]()(scores, mask), (values.requires_grad_(),))


@every_pooling
def test_a_bag_without_instances_and_a_mask_that_does_not_fit_are_refused(name: str) -> None:
    values, mask = padded(bags((3, 5)), 5, 0.0)
    mask[1] = False
    with pytest.raises(DataError, match="^bag 1 of 2 has no instance, expected one at least$"):
        POOLINGS[name]()(values, mask)
    with pytest.raises(DataError, match=r"a mask of shape \(2, 4\)"):
        POOLINGS[name]()(values, mask[:, :4])


@every_pooling
def test_a_bag_of_one_is_worth_its_instance(name: str) -> None:
    (bag,) = bags((1,))
    factor = {"max_min": 2.0, "top_bottom": (1 + 0.7) / 2}.get(name, 1.0)
    torch.testing.assert_close(POOLINGS[name]()(bag[None]), factor * bag)


@pytest.mark.parametrize("betas", [(0.0, 0.0), (1e-12, -1e-9), (1e-4, -1e-4)])
def test_the_generalised_log_sum_exp_goes_to_the_mean_at_zero(betas: tuple[float, float]) -> None:
    (bag,) = bags((11,))
    found = GeneralisedLogSumExp(betas).double()(bag[None])
    torch.testing.assert_close(found, bag.mean(dim=0)[None], rtol=0, atol=1e-6 if abs(betas[0]) < 1e-5 else 1e-3)


def test_the_generalised_log_sum_exp_goes_to_the_extremes_at_infinity() -> None:
    (bag,) = bags((11,))
    top, bottom = bag.amax(dim=0)[None], bag.amin(dim=0)[None]
    for betas, expected in (
        ((1e7, 1e7), top),
        ((-1e7, -1e7), bottom),
        ((1e7, -1e7), (top + bottom) / 2),
    ):
        found = GeneralisedLogSumExp(betas).double()(bag[None])
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("beta", [-30.0, -1.0, -0.01, -1e-3, 1e-4, 1e-3, 2e-3, 0.1, 1.0, 1e3])
@pytest.mark.parametrize("shift", [0.0, 500.0])
def test_the_soft_extreme_is_that_of_scipy(beta: float, shift: float) -> None:
    values, mask = padded([bag + shift for bag in bags((4, 7))], 7, 0.0)
    found = soft_extreme(values, mask, torch.tensor(beta, dtype=torch.float64))
    expected = np.stack(
        [
            shift
            + (logsumexp(beta * (values[row, mask[row]].numpy() - shift), axis=0) - np.log(int(mask[row].sum()))) / beta
            for row in range(2)
        ]
    )
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-11)


@pytest.mark.parametrize("beta", [-3.0, -2e-3, -1e-3, -1e-5, 0.0, 1e-5, 1e-3, 2e-3, 4.0])
def test_betas_have_the_gradient_of_finite_differences_also_at_zero(beta: float) -> None:
    values, mask = padded(bags((4, 7)), 7, 0.0)
    step = 1e-4

    def at(value: float) -> Tensor:
        return soft_extreme(values, mask, torch.tensor(value, dtype=torch.float64)).sum()

    leaf = torch.tensor(beta, dtype=torch.float64, requires_grad=True)
    soft_extreme(values, mask, leaf).sum().backward()
    assert float(leaf.grad) == pytest.approx(float(at(beta + step) - at(beta - step)) / (2 * step), rel=1e-5)


def test_betas_are_learned_and_do_not_move_when_they_are_not_to() -> None:
    (bag,) = bags((6,))
    pooling = GeneralisedLogSumExp().double()
    pooling(bag[None]).sum().backward()
    assert (pooling.betas.grad > 0).all()  # both raise what is pooled
    assert not list(GeneralisedLogSumExp(learnable=False).parameters())


@pytest.mark.parametrize(("top", "expected"), [(1, 4.0), (2, 3.5), (0.5, 3.5), (0.01, 4.0), (99, 2.5)])
def test_so_many_of_the_highest_are_taken(top: float, expected: float) -> None:
    scores = torch.tensor([3.0, 1.0, 4.0, 2.0])[None, :, None]
    assert float(TopBottomPooling(top)(scores)) == expected


def test_top_and_bottom_are_those_of_the_formula() -> None:
    scores = torch.tensor([3.0, 1.0, 4.0, 2.0])[None, :, None]
    assert float(TopBottomPooling(2, 1, 0.7)(scores)) == pytest.approx((3.5 + 0.7 * 1) / 2)
    assert float(TopBottomPooling(2, 1, 0.0)(scores)) == 3.5
    assert float(TopBottomPooling(1, 1)(scores)) == float(MaxMinPooling()(scores)) / 2


@pytest.mark.parametrize("gated", [True, False])
def test_attention_is_that_of_torchmil_given_the_same_weights(gated: bool) -> None:
    from torchmil.nn import AttentionPool

    torch.manual_seed(0)
    ours = GatedAttention(12, 7, gated=gated).double()
    theirs = AttentionPool(12, 7, gated=gated).double()
    theirs.fc1.module.load_state_dict(ours.content.state_dict())
    theirs.fc2.load_state_dict(ours.score.state_dict())
    if gated:
        theirs.fc_gated.module.load_state_dict(ours.gate.state_dict())
    values, mask = padded(bags((3, 9, 1), outputs=12), 9, 0.0)
    expected, scores = theirs(values, mask.double(), return_att=True)
    torch.testing.assert_close(ours(values, mask), expected, rtol=0, atol=1e-6)
    weights = ours.weights(values, mask)
    torch.testing.assert_close(weights, scores.masked_fill(~mask, -torch.inf).softmax(dim=1), rtol=0, atol=1e-6)
    torch.testing.assert_close(weighted_sum(weights, values), expected, rtol=0, atol=1e-6)
