from __future__ import annotations

import copy
from dataclasses import replace
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from data_shards.support.errors import ConfigError, TrainingError
from finetune.steppers import STEPPERS
from finetune.steppers.dba.batch_size import next_batch_size
from finetune.steppers.dba.selection import SELECTIONS, Selection, Strides, register_selection
from finetune.steppers.dba.subsets import MOST_TRIED, _leaving_out, best_subsets, random_subset
from tests.finetune.steppers.learners import Cut, objective, perceptron, stepper_on

GENERATOR = np.random.default_rng(0)


@register_selection("looked_at_and_all_taken")
class LookedAt(Selection):
    """Everything, which is not known beforehand."""

    def choose(self, strides: Strides, generator: np.random.Generator) -> np.ndarray:
        return np.ones(strides.gram_LKK.shape[:2], dtype=bool)


EVERYTHING: list[dict[str, Any]] = [
    {"selection": "all"},
    {"selection": "gradient_norm", "stride": 8},
    {"selection": "variance_norm", "min_batch": 8},
    {"selection": "looked_at_and_all_taken", "stride": 2},
]


@pytest.mark.parametrize("setting", ["whole", "in parts", "mixed"])
@pytest.mark.parametrize("options", EVERYTHING, ids=lambda options: options["selection"])
def test_selecting_everything_is_the_plain_stepper_bit_for_bit(options: dict[str, Any], setting: str) -> None:
    found = []
    for name, given in (("plain", {}), ("dba", options)):
        learner = perceptron(20, at_once=3 if setting == "in parts" else 1000)
        stepper = stepper_on(learner, name, given, mixup=0.4 if setting == "mixed" else 0.0)
        torch.manual_seed(7)  # dropout
        losses = [stepper.step(number) for number in range(7)]
        found.append((losses, learner.module.state_dict(), torch.rand(3)))
    (plain, weights, rest), (dba, others, after) = found
    if options["selection"] != "looked_at_and_all_taken":
        assert plain == dba
    assert all(torch.equal(weights[key], others[key]) for key in weights)
    assert torch.equal(rest, after)  # as many numbers were drawn


def _single(network: nn.Module, x: torch.Tensor, rows: np.ndarray, count: int) -> list[dict[str, torch.Tensor]]:
    found = []
    for row in rows.tolist():
        loss = objective(count).per_case(network(x[row : row + 1]), np.array([row]))[0]
        gradients = torch.autograd.grad(loss, list(network.parameters()))
        found.append({name: each for (name, _), each in zip(network.named_parameters(), gradients, strict=True)})
    return found


def _score(rule: str, gradients_SP: torch.Tensor) -> float:
    """Of a subset, by its definition."""
    if rule == "gradient_norm":
        return -float(gradients_SP.mean(dim=0).norm())
    return float(gradients_SP.var(dim=0).sum()) / len(gradients_SP)


@pytest.mark.parametrize("at_once", [1000, 3])
@pytest.mark.parametrize("rule", ["gradient_norm", "variance_norm"])
def test_a_step_is_that_of_a_loop_over_samples_and_all_subsets(rule: str, at_once: int) -> None:
    learner = perceptron(20, dropout=0.0, at_once=at_once)
    learner.module.double()
    learner.x = learner.x.double()
    before = copy.deepcopy(learner.module)
    options = {"selection": rule, "stride": 1, "min_batch": 2, "max_batch": 6}
    stepper = stepper_on(learner, "dba", options, batch_size=6)
    stepper.step(0)
    batch = np.concatenate(learner.seen)
    single = _single(before, learner.x, batch, 20)
    moved = dict(learner.module.named_parameters())
    total = 0.0
    steps = {}
    for layer in ("first", "middle", "last", "norm"):
        names = [f"{layer}.weight", f"{layer}.bias"]
        each = torch.stack([torch.cat([sample[name].flatten() for name in names]) for sample in single])
        subsets = [list(subset) for size in range(2, 7) for subset in combinations(range(6), size)]
        best = min(subsets, key=lambda subset: _score(rule, each[subset]))
        assert stepper.report["chosen_by_layer"][layer] == len(best)
        for name in names:
            steps[name] = torch.stack([single[sample][name] for sample in best]).mean(dim=0)
            total += float(steps[name].square().sum())
    factor = min(1.0, stepper.drawing.clip_norm / (total**0.5 + 1e-6))
    for name, parameter in before.named_parameters():
        torch.testing.assert_close(moved[name], parameter - 0.05 * factor * steps[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("batch_size", "selected", "expected"),
    [
        (10, [8], 10),  # at 0.8 B nothing changes
        (10, [9], 14),
        (10, [8, 9], 14),  # a median of 8.5
        (10, [2], 10),  # nor at 0.2 B
        (10, [1], 6),
        (10, [1, 2], 6),
        (10, [5, 1, 10], 10),
        (10, [10, 10, 1], 14),
        (15, [12], 15),  # 0.8 * 15 is above 12 in floats
        (15, [3], 15),
        (15, [13], 16),  # the largest
        (5, [0.5], 4),  # the smallest
        (4, [4], 8),
        (16, [16], 16),
    ],
)
def test_the_size_of_batches_follows_the_median_of_what_was_selected(
    batch_size: int, selected: list[int], expected: int
) -> None:
    assert next_batch_size(batch_size, selected, 4, 4, 16) == expected


def test_batches_grow_where_much_is_chosen_and_shrink_where_little_is_within_their_bounds() -> None:
    given = {"stride": 2, "delta": 3, "min_batch": 6, "max_batch": 12}
    grown = stepper_on(perceptron(40), "dba", {"selection": "all", **given}, batch_size=8, count=40)
    for number in range(20):
        grown.step(number)
    assert [grown.batch_size(epoch) for epoch in range(5)] == [8, 11, 12, 12, 12]
    # Never less than the fewest of 2 of 8 is chosen, which is above a fifth; of 12 and 2 it is not.
    shrunk = stepper_on(perceptron(40), "dba", {"stride": 1, "min_batch": 1, "max_batch": 12}, batch_size=8, count=40)
    for number in range(30):
        shrunk.step(number)
    sizes = shrunk.report["batches"]["batch_size"]
    assert sizes[0] == 8 and sizes[-1] == 5 and all(0 <= a - b <= 1 for a, b in pairwise(sizes))


def test_a_change_of_the_batch_size_never_draws_other_cases() -> None:
    learner = perceptron(40)
    given = {"selection": "random", "stride": 1, "min_batch": 1, "max_batch": 30, "delta": 5}
    stepper = stepper_on(learner, "dba", given, batch_size=7, count=12)  # 12 of 40 are given
    for number in range(40):
        stepper.step(number)
    report = stepper.report
    assert report["distinct_seen"] == 12 and report["distinct_chosen"] <= 12
    assert max(report["batches"]["distinct"]) <= 12 and set(np.concatenate(learner.seen)) == set(range(12))
    assert max(report["batches"]["batch_size"]) <= 12
    counts = np.bincount(np.concatenate(learner.seen))
    assert counts.max() - counts.min() <= 1  # every case equally often, as the plain stepper draws them


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("options", [{}, {"stride": 4}, {"selection": "variance_norm", "stride": 1}])
def test_fewer_cases_than_a_batch_are_all_there_is_to_choose_from(count: int, options: dict[str, Any]) -> None:
    stepper = stepper_on(perceptron(4), "dba", options, count=count)
    for number in range(4):
        assert np.isfinite(stepper.step(number))
    assert stepper.report["distinct_seen"] == count and stepper.batch_size(9) <= count


def strides_of(gradients_NP: np.ndarray, size_K: list[int], least: int, most: int) -> Strides:
    owner = np.repeat(np.arange(len(size_K)), size_K)
    sums = np.stack([gradients_NP[owner == stride].sum(axis=0) for stride in range(len(size_K))])
    return Strides((sums @ sums.T)[None], np.array(size_K), least, most)


@pytest.mark.parametrize("rule", ["gradient_norm", "variance_norm"])
def test_rules_are_their_definitions_over_strides_of_unequal_size(rule: str) -> None:
    generator, size_K = np.random.default_rng(4), [3, 3, 3, 2]
    for _ in range(20):
        gradients = generator.normal(size=(11, 5)) + generator.normal(size=5)
        strides = strides_of(gradients, size_K, 4, 9)
        means = [part.mean(axis=0) for part in np.split(gradients, np.cumsum(size_K)[:-1])]
        scores = {}
        for size in range(1, 5):
            for subset in combinations(range(4), size):
                cases = sum(size_K[stride] for stride in subset)
                if not 4 <= cases <= 9:
                    continue
                share = np.array([size_K[stride] for stride in subset])[:, None] / cases
                each = np.stack([means[stride] for stride in subset])
                center = (share * each).sum(axis=0)
                if rule == "gradient_norm":
                    scores[subset] = -np.linalg.norm(center)
                elif size > 1:
                    variance = size / (size - 1) * (share * (each - center) ** 2).sum(axis=0)
                    scores[subset] = np.abs(variance).sum() / size
        (chosen,) = SELECTIONS.named(rule)(SELECTIONS.config(rule, {})).choose(strides, GENERATOR)
        assert tuple(np.flatnonzero(chosen)) == min(scores, key=scores.__getitem__)


def test_many_strides_are_searched_by_leaving_out_and_bounds_hold() -> None:
    generator = np.random.default_rng(1)
    count = MOST_TRIED + 6
    strides = strides_of(generator.normal(size=(2 * count, 4)), [2] * count, 6, 20)
    for rule in SELECTIONS.names():
        if rule in ("all", "looked_at_and_all_taken"):
            continue
        (chosen,) = SELECTIONS.named(rule)(SELECTIONS.config(rule, {})).choose(strides, generator)
        assert 6 <= 2 * chosen.sum() <= 20
    # The sum of independent squares is smallest without those that add most.
    found = best_subsets(strides.gram_LKK, strides.size_K, lambda sums: sums.squares / sums.strides, 6, 2 * count)
    kept = np.sort(strides.gram_LKK[0].diagonal())[2]
    np.testing.assert_array_equal(found[0], strides.gram_LKK[0].diagonal() <= kept)


def test_layers_are_searched_at_once_as_each_alone_and_few_strides_as_many() -> None:
    generator = np.random.default_rng(2)
    for count in (MOST_TRIED, MOST_TRIED + 5):
        sums = generator.normal(size=(7, count, 4)) + generator.normal(size=(7, 1, 4))
        size_K = generator.integers(1, 4, size=count)
        strides = Strides(sums @ sums.transpose(0, 2, 1), size_K, 3, int(size_K.sum()) - 2)
        for rule in ("gradient_norm", "variance_norm"):
            choose = SELECTIONS.named(rule)(SELECTIONS.config(rule, {})).choose
            alone = [choose(replace(strides, gram_LKK=gram[None]), generator)[0] for gram in strides.gram_LKK]
            np.testing.assert_array_equal(choose(strides, generator), alone)
    # Leaving out one by one may miss the best, and is never worse than taking all.
    options = (strides.gram_LKK[:, :6, :6], size_K[:6], lambda sums: -sums.squared_sum / sums.cases**2, 2, 30)
    greedy, exact = (search(*options) for search in (_leaving_out, best_subsets))
    for mask, best, gram in zip(greedy, exact, options[0], strict=True):
        found, least = (-(each @ gram @ each) / (each @ size_K[:6]) ** 2 for each in (mask, best))
        assert least <= found <= -gram.sum() / size_K[:6].sum() ** 2


def test_random_subsets_have_every_allowed_size_and_every_stride_equally_often() -> None:
    generator = np.random.default_rng(0)
    drawn = np.stack([random_subset(np.array([2, 2, 2, 1]), 2, 5, generator) for _ in range(4000)])
    cases = drawn @ np.array([2, 2, 2, 1])
    assert cases.min() == 2 and cases.max() == 5
    assert np.abs(drawn[:, :3].mean(axis=0) - drawn[:, 0].mean()).max() < 0.03


def test_what_cannot_be_chosen_from_is_one_message_each() -> None:
    def refused(**options: Any) -> str:
        with pytest.raises(ConfigError) as caught:
            stepper_on(perceptron(20), "dba", options)
        return str(caught.value)

    assert "min_batch 9 is above max_batch 4" in refused(min_batch=9, max_batch=4)
    assert "min_batch 9 is above max_batch 8, which is batch_size by default" in refused(min_batch=9)
    assert "stride 9 is larger than the batch of 8" in refused(stride=9)
    assert "unknown selection 'gradient_nrom'; did you mean 'gradient_norm'" in refused(selection="gradient_nrom")
    assert "selektion" in refused(selektion="all")
    with pytest.raises(ConfigError, match="stride"):
        STEPPERS.config("dba", {"stride": 0})


class Reduced(Cut):
    def losses(self, *given: Any) -> torch.Tensor:
        return super().losses(*given).mean()


def test_a_reduced_loss_a_layer_of_the_batch_and_gradients_that_are_no_numbers_stop_the_step() -> None:
    network = perceptron(20).module
    with pytest.raises(ConfigError, match="the loss is reduced already; one number for each of the 8 cases"):
        stepper_on(Reduced(network, torch.randn(20, 6)), "dba", {}).step(0)
    normed = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    with pytest.raises(ConfigError, match=r"layer 1 \(BatchNorm1d\) normalises by statistics of the batch"):
        stepper_on(Cut(normed, torch.randn(20, 6)), "dba", {}).step(0)
    bilinear = nn.Sequential(nn.Bilinear(6, 6, 1))
    with pytest.raises(ConfigError, match=r"layer 0 \(Bilinear\).*no rule"):
        stepper_on(Cut(bilinear, torch.randn(20, 6)), "dba", {}).step(0)
    with pytest.raises(TrainingError, match="the loss of a case is nan, at step 3; try a smaller learning rate"):
        stepper_on(Cut(network, torch.full((20, 6), torch.nan)), "dba", {}).step(3)


class Rooted(nn.Module):
    """Its loss is finite and the gradient of its root is not."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 1, bias=False)
        nn.init.zeros_(self.linear.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x).abs().sqrt()


def test_a_layer_whose_gradients_are_not_finite_is_named() -> None:
    with pytest.raises(TrainingError, match="gradients of layer linear are not finite at step 0"):
        stepper_on(Cut(Rooted(), torch.randn(20, 6)), "dba", {}).step(0)
