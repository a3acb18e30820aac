from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from data_shards.support.errors import ConfigError, TrainingError
from finetune.steppers.variance_adapted import believed
from tests.finetune.steppers.learners import Cut, objective, perceptron, stepper_on


@pytest.mark.parametrize("at_once", [1000, 3])
def test_without_doubt_it_is_the_plain_stepper_bit_for_bit(at_once: int) -> None:
    found = []
    for name, options in (("plain", {}), ("variance_adapted", {"strength": 0.0})):
        learner = perceptron(20, at_once=at_once)
        stepper = stepper_on(learner, name, options, mixup=0.4)
        torch.manual_seed(7)  # dropout
        for number in range(7):
            stepper.step(number)
        found.append((learner.module.state_dict(), torch.rand(3)))
    (plain, rest), (other, after) = found
    assert all(torch.equal(plain[key], other[key]) for key in plain) and torch.equal(rest, after)


@pytest.mark.parametrize("strength", [0.5, 1.0, 4.0])
def test_factors_are_those_of_the_variance_of_the_mean(strength: float) -> None:
    gradients_BP = torch.randn(9, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.3
    parts = gradients_BP / 9
    found = believed(parts.sum(dim=0), parts.square().sum(dim=0), 9, strength)
    mean, error = gradients_BP.mean(dim=0), gradients_BP.var(dim=0) / 9
    expected = mean * (1 - strength * error / mean.square()).clamp(min=0)
    torch.testing.assert_close(found, expected)
    assert (found == 0).any() and (found != 0).any()


def test_what_all_cases_agree_about_is_followed_and_what_none_says_stays_where_it_is() -> None:
    alike = torch.full((4, 2), 0.25, dtype=torch.float64)
    torch.testing.assert_close(believed(alike.sum(dim=0), alike.square().sum(dim=0), 4, 1.0), alike.sum(dim=0))
    opposed = torch.tensor([[1.0], [-1.0]])
    assert not believed(opposed.sum(dim=0), opposed.square().sum(dim=0), 2, 1.0).any()
    tiny = torch.tensor([[1e-30], [1e-30]])  # its square is none of float32
    assert not believed(tiny.sum(dim=0), tiny.square().sum(dim=0), 2, 1.0).any()


def test_it_is_nearer_to_the_expectation_than_the_mean_where_most_numbers_are_noise() -> None:
    generator = torch.Generator().manual_seed(1)
    truth = torch.zeros(400).index_fill_(0, torch.arange(20), 1.0)
    parts = (truth + torch.randn(16, 400, generator=generator)) / 16
    mean = parts.sum(dim=0)
    found = believed(mean, parts.square().sum(dim=0), 16, 1.0)
    assert float((found - truth).square().sum()) < 0.7 * float((mean - truth).square().sum())


@pytest.mark.parametrize("at_once", [1000, 3])
def test_a_step_is_that_of_a_loop_over_cases(at_once: int) -> None:
    learner = perceptron(20, dropout=0.0, at_once=at_once)
    learner.module.double()
    learner.x = learner.x.double()
    before = copy.deepcopy(learner.module)
    stepper = stepper_on(learner, "variance_adapted", {"strength": 1.5})
    stepper.step(0)
    batch = np.concatenate(learner.seen)
    each = []
    for row in batch.tolist():
        loss = objective(20).per_case(before(learner.x[row : row + 1]), np.array([row]))[0]
        each.append(torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(before.parameters()))]))
    gradients_BP = torch.stack(each)
    mean = gradients_BP.mean(dim=0)
    step = mean * (1 - 1.5 * gradients_BP.var(dim=0) / len(batch) / mean.square()).nan_to_num().clamp(min=0)
    assert stepper.report["believed"] == pytest.approx(float(step.norm() / mean.norm()))
    step *= min(1.0, stepper.drawing.clip_norm / (float(step.norm()) + 1e-6))
    expected = torch.nn.utils.parameters_to_vector(before.parameters()) - 0.05 * step
    found = torch.nn.utils.parameters_to_vector(learner.module.parameters())
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_what_has_no_variance_and_gradients_that_are_no_numbers_are_one_message_each() -> None:
    with pytest.raises(ConfigError, match="one case has no variance; batch_size is 2 or above"):
        stepper_on(perceptron(20), "variance_adapted", {}, batch_size=1)
    with pytest.raises(ConfigError, match="strength"):
        stepper_on(perceptron(20), "variance_adapted", {"strength": -1})
    with pytest.raises(TrainingError, match="the loss of a case is nan, at step 3; try a smaller learning rate"):
        stepper_on(Cut(perceptron(20).module, torch.full((20, 6), torch.nan)), "variance_adapted", {}).step(3)
