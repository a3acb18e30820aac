from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch

from data_shards.support.errors import ConfigError, TrainingError
from finetune.steppers.norm_test import enough, variance_and_squared_norm
from tests.finetune.steppers.learners import Cut, perceptron, stepper_on


@pytest.mark.parametrize("at_once", [1000, 3])
def test_a_batch_that_may_not_grow_is_that_of_the_plain_stepper_bit_for_bit(at_once: int) -> None:
    found = []
    for name, options in (("plain", {}), ("norm_test", {"max_batch": 8})):
        learner = perceptron(20, at_once=at_once)
        stepper = stepper_on(learner, name, options, mixup=0.4)
        torch.manual_seed(7)  # dropout
        for number in range(7):
            stepper.step(number)
        found.append((learner.module.state_dict(), torch.rand(3)))
    (plain, rest), (other, after) = found
    assert all(torch.equal(plain[key], other[key]) for key in plain) and torch.equal(rest, after)


def test_variance_and_norm_are_those_of_gradients_by_case() -> None:
    gradients_BP = np.random.default_rng(0).normal(size=(7, 4)) + 0.5
    added = gradients_BP / 7  # to the mean over the batch
    variance, squared_norm = variance_and_squared_norm(added @ added.T)
    assert variance == pytest.approx(gradients_BP.var(axis=0, ddof=1).sum())
    assert squared_norm == pytest.approx(np.square(gradients_BP.mean(axis=0)).sum())


def test_the_error_of_a_batch_is_that_of_all_batches_without_replacement() -> None:
    gradients_NP = np.random.default_rng(1).normal(size=(6, 3)) + 0.3
    every = gradients_NP.mean(axis=0)
    variance = gradients_NP.var(axis=0, ddof=1).sum()
    for size in range(1, 7):
        means = [gradients_NP[list(batch)].mean(axis=0) for batch in combinations(range(6), size)]
        error = np.mean([np.square(mean - every).sum() for mean in means])
        assert error == pytest.approx(variance * (1 / size - 1 / 6), abs=1e-12)


@pytest.mark.parametrize("theta", [0.2, 0.7, 1.0, 3.0])
def test_the_fewest_cases_that_pass_the_test_are_asked_for(theta: float) -> None:
    cases, variance, squared_norm = 40, 2.5, 0.2
    passing = [n for n in range(1, cases + 1) if variance * (1 / n - 1 / cases) <= theta**2 * squared_norm]
    assert enough(variance, squared_norm, theta, cases) == passing[0]
    assert enough(0.0, squared_norm, theta, cases) == 1
    assert enough(variance, 0.0, theta, cases) == cases  # a mean gradient of 0 is never known well enough


def test_batches_grow_from_what_was_measured_and_never_shrink() -> None:
    stepper = stepper_on(perceptron(40), "norm_test", {"theta": 0.3}, batch_size=4, count=40)
    for number in range(60):
        stepper.step(number)
    curves = stepper.report["batches"]
    sizes = curves["batch_size"]
    assert sizes[0] == 4 and sizes == sorted(sizes) and 40 >= sizes[-1] > 20
    for now, later, variance, squared_norm in zip(
        sizes, sizes[1:], curves["variance"], curves["squared_norm"], strict=False
    ):
        assert later == max(now, enough(variance, squared_norm, 0.3, 40))
    assert stepper.report["distinct_seen"] == 40


def test_cases_that_are_all_alike_need_no_larger_batch() -> None:
    learner = perceptron(20, dropout=0.0)
    learner.x[:] = learner.x[0]
    learner.module.double()
    learner.x = learner.x.double()
    stepper = stepper_on(learner, "norm_test", {}, batch_size=4)
    stepper.objective.values[:] = 1
    for number in range(20):
        stepper.step(number)
    assert set(stepper.report["batches"]["batch_size"]) == {4}


def test_what_cannot_be_measured_is_one_message_each() -> None:
    with pytest.raises(ConfigError, match="one case has no variance; batch_size is 2 or above"):
        stepper_on(perceptron(20), "norm_test", {}, batch_size=1)
    with pytest.raises(ConfigError, match="max_batch 4 is below batch_size 8"):
        stepper_on(perceptron(20), "norm_test", {"max_batch": 4})
    with pytest.raises(TrainingError, match="the loss of a case is nan, at step 3; try a smaller learning rate"):
        stepper_on(Cut(perceptron(20).module, torch.full((20, 6), torch.nan)), "norm_test", {}).step(3)
