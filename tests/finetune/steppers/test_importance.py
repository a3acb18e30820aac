from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from data_shards.support.errors import ConfigError, TrainingError
from finetune.steppers.importance import drawn, gain_of, probabilities
from tests.finetune.steppers.learners import Cut, objective, perceptron, stepper_on


@pytest.mark.parametrize("at_once", [1000, 3])
def test_without_gain_it_is_the_plain_stepper_bit_for_bit(at_once: int) -> None:
    found = []
    for name, options in (("plain", {}), ("importance", {"threshold": 100.0})):
        learner = perceptron(20, at_once=at_once)
        stepper = stepper_on(learner, name, options)
        torch.manual_seed(7)  # dropout
        losses = [stepper.step(number) for number in range(7)]
        found.append((losses, learner.module.state_dict(), torch.rand(3)))
    (plain, weights, rest), (other, same, after) = found
    assert plain == other and torch.equal(rest, after)
    assert all(torch.equal(weights[key], same[key]) for key in weights)
    assert stepper.report["weighted_steps"] == 0


def test_the_gain_is_the_ratio_of_second_moments() -> None:
    score = np.array([3.0, 1.0, 0.5, 0.0])
    # Uniform draws: mean square; draws in proportion: the square of the mean (of the norms of weighted gradients).
    assert gain_of(score) ** 2 == pytest.approx(np.square(score).mean() / score.mean() ** 2)
    assert gain_of(np.full(5, 0.7)) == pytest.approx(1) and gain_of(np.array([0.0, 0, 0, 2])) == pytest.approx(2)
    assert gain_of(np.zeros(3)) == pytest.approx(1)
    np.testing.assert_allclose(probabilities(np.zeros(4)), 0.25)


def test_weights_undo_how_often_each_case_is_drawn() -> None:
    score, values = np.array([3.0, 1.0, 0.5, 0.2]), np.array([1.0, -2.0, 4.0, 0.3])
    place, weight = drawn(score, 200_000, np.random.default_rng(0))
    np.testing.assert_allclose(np.bincount(place) / len(place), probabilities(score), atol=0.005)
    np.testing.assert_allclose(weight, 1 / (4 * probabilities(score)[place]))
    assert (weight * values[place]).mean() == pytest.approx(values.mean(), abs=0.02)


def test_scores_are_residuals_without_dropout_and_draw_no_number() -> None:
    learner = perceptron(20, dropout=0.5, at_once=3)
    stepper = stepper_on(learner, "importance", {})
    before = torch.get_rng_state()
    rows = np.array([3, 0, 7, 12])
    score = stepper._scores(rows, 0)
    assert torch.equal(before, torch.get_rng_state()) and learner.module.training
    with torch.no_grad():
        said = torch.sigmoid(copy.deepcopy(learner.module).eval()(learner.x[torch.from_numpy(rows)])[:, 0])
    np.testing.assert_allclose(score, (said - torch.from_numpy(rows % 2)).abs().numpy(), rtol=1e-5)


def test_the_expected_gradient_of_a_draw_is_that_of_all_that_was_looked_at() -> None:
    learner = perceptron(12, dropout=0.0)
    learner.module.double()
    learner.x = learner.x.double()
    stepper = stepper_on(learner, "importance", {}, count=12)

    def gradient() -> torch.Tensor:
        found = torch.cat([parameter.grad.flatten() for parameter in learner.module.parameters()])
        learner.module.zero_grad()
        return found

    probability = probabilities(stepper._scores(np.arange(12), 0))
    assert probability.max() > 1.5 * probability.min()
    expected = torch.zeros(())
    for case in range(12):
        stepper._descend_weighted(np.array([case]), np.array([1 / (12 * probability[case])]), 0)
        expected = expected + probability[case] * gradient()
    objective(12).per_case(learner.module(learner.x), np.arange(12)).mean().backward()
    torch.testing.assert_close(expected, gradient(), rtol=1e-9, atol=1e-12)


def test_draws_begin_where_few_cases_hold_most_of_the_gradient_and_none_is_foreign() -> None:
    learner = perceptron(40, dropout=0.0)
    learner.x[:, 0] *= 20
    stepper = stepper_on(learner, "importance", {"threshold": 1.2, "memory": 0.5}, count=20)
    for number in range(60):
        stepper.step(number)
    report = stepper.report
    assert 0 < report["weighted_steps"] < 60
    assert report["distinct_seen"] == 20 and set(np.concatenate(learner.seen)) <= set(range(20))


def test_mixtures_and_losses_that_are_no_numbers_are_one_message_each() -> None:
    with pytest.raises(ConfigError, match="stepper importance draws single cases"):
        stepper_on(perceptron(20), "importance", {}, mixup=0.2)
    with pytest.raises(TrainingError, match="a gradient is not finite at step 3; try a smaller learning rate"):
        stepper_on(Cut(perceptron(20).module, torch.full((20, 6), torch.nan)), "importance", {}).step(3)
