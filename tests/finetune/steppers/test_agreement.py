from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from data_shards.support.errors import ConfigError, TrainingError
from finetune.steppers.agreement import agreement, kept
from tests.finetune.steppers.learners import Cut, objective, perceptron, stepper_on

EVERYTHING: list[dict[str, Any]] = [{"threshold": -1.0}, {"least": 1.0}, {"threshold": -0.9999}]


@pytest.mark.parametrize("at_once", [1000, 3])
@pytest.mark.parametrize("options", EVERYTHING, ids=str)
def test_keeping_everything_is_the_plain_stepper_bit_for_bit(options: dict[str, Any], at_once: int) -> None:
    found = []
    for name, given in (("plain", {}), ("agreement", options)):
        learner = perceptron(20, at_once=at_once)
        stepper = stepper_on(learner, name, given)
        torch.manual_seed(7)  # dropout
        for number in range(7):
            stepper.step(number)
        found.append((learner.module.state_dict(), torch.rand(3)))
    (plain, rest), (other, after) = found
    assert all(torch.equal(plain[key], other[key]) for key in plain) and torch.equal(rest, after)


def by_definition(gradients_BP: torch.Tensor, stratum_B: list[int]) -> list[float]:
    """Case by case, class by class."""
    found = []
    for case in range(len(stratum_B)):
        votes = []
        for stratum in sorted(set(stratum_B)):
            others = [other for other in range(len(stratum_B)) if stratum_B[other] == stratum and other != case]
            if others:
                pairs = [torch.cosine_similarity(gradients_BP[case], gradients_BP[other], dim=0) for other in others]
                votes.append(float(torch.stack(pairs).mean()))
        found.append(sum(votes) / len(votes) if votes else 0.0)
    return found


def test_agreement_is_its_definition_and_does_not_depend_on_how_long_gradients_are() -> None:
    gradients_BP = torch.randn(9, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    stratum = [0, 1, 1, 0, 0, 2, 1, 0, 0]  # of one class there is a single case
    found = agreement((gradients_BP @ gradients_BP.T).numpy(), np.array(stratum))
    np.testing.assert_allclose(found, by_definition(gradients_BP, stratum), rtol=1e-12, atol=1e-14)
    longer = gradients_BP * torch.arange(1, 10)[:, None]
    np.testing.assert_allclose(agreement((longer @ longer.T).numpy(), np.array(stratum)), found, atol=1e-14)
    assert agreement(np.eye(1), np.array([0])) == 0 and not agreement(np.zeros((2, 2)), np.array([0, 1])).any()


def test_of_a_logistic_regression_it_is_the_margin_of_the_nearest_mean_of_the_others() -> None:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(12, 3))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    y = np.arange(12) % 2
    sign = 2 * y - 1
    residual = sign * generator.uniform(0.05, 0.95, size=12)  # whatever the weights are
    gradients = residual[:, None] * x
    found = agreement(gradients @ gradients.T, y)
    for case in range(12):
        of_others = [x[(y == label) & (np.arange(12) != case)].mean(axis=0) for label in (0, 1)]
        assert found[case] == pytest.approx(0.5 * sign[case] * x[case] @ (of_others[1] - of_others[0]))


@pytest.mark.parametrize("at_once", [1000, 3])
def test_a_step_is_that_of_a_loop_over_cases(at_once: int) -> None:
    learner = perceptron(20, dropout=0.0, at_once=at_once)
    learner.module.double()
    learner.x = learner.x.double()
    before = copy.deepcopy(learner.module)
    stepper = stepper_on(learner, "agreement", {"threshold": 0.1, "least": 0.25})
    stepper.step(0)
    batch = np.concatenate(learner.seen)
    each = []
    for row in batch.tolist():
        loss = objective(20).per_case(before(learner.x[row : row + 1]), np.array([row]))[0]
        each.append(torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(before.parameters()))]))
    gradients_BP = torch.stack(each)
    votes = by_definition(gradients_BP, (batch % 2).tolist())
    chosen = [place for place, vote in enumerate(votes) if vote >= 0.1]
    assert 2 <= len(chosen) < 8 and stepper.report["chosen_by_layer"] == {"all layers": len(chosen)}
    step = gradients_BP[chosen].mean(dim=0)
    step *= min(1.0, stepper.drawing.clip_norm / (float(step.norm()) + 1e-6))
    expected = nn.utils.parameters_to_vector(before.parameters()) - 0.05 * step
    torch.testing.assert_close(nn.utils.parameters_to_vector(learner.module.parameters()), expected)


def test_the_wrongly_labelled_are_left_out() -> None:
    learner = perceptron(60, seed=1, dropout=0.0)
    stepper = stepper_on(learner, "agreement", {}, batch_size=30, count=60)
    wrong = np.arange(60) % 6 == 0  # a third of one class
    learner.x[torch.from_numpy(wrong)] *= torch.tensor([-1.0, 1, 1, 1, 1, 1])
    learner.x[torch.from_numpy(wrong), 0] += 2.0
    for number in range(40):
        stepper.step(number)
    votes = np.array([stepper._agreement[case] for case in range(60)])
    assert (votes[wrong] < 0).mean() > 0.8 and (votes[~wrong] > 0).mean() > 0.8


def test_what_was_said_of_a_case_is_remembered() -> None:
    stepper = stepper_on(perceptron(20), "agreement", {"memory": 0.75})
    batch = np.array([4, 9])
    np.testing.assert_allclose(stepper._remembered(batch, np.array([0.4, -0.2])), [0.4, -0.2])
    np.testing.assert_allclose(stepper._remembered(batch[:1], np.array([0.0])), [0.3])
    np.testing.assert_allclose(stepper._remembered(batch, np.array([0.7, 0.2])), [0.4, -0.1])


@pytest.mark.parametrize(
    ("votes", "least", "expected"),
    [
        ([0.2, -0.1, 0.0, -0.3], 0.25, [0, 2]),  # at the threshold it stays
        ([0.2, -0.1, -0.2, -0.3], 0.5, [0, 1]),
        ([-0.2, -0.1, -0.1, -0.1], 0.5, [1, 2]),  # among equals the first
        ([-0.2, -0.1, -0.3], 0.1, [1]),
        ([-0.2, -0.1, -0.3], 1 / 3, [1]),
        ([0.2, 0.1, 0.3], 0.1, [0, 1, 2]),
    ],
)
def test_who_is_kept(votes: list[float], least: float, expected: list[int]) -> None:
    assert np.flatnonzero(kept(np.array(votes), 0.0, least)).tolist() == expected


def test_a_case_that_was_left_out_is_drawn_again() -> None:
    learner = perceptron(20)
    stepper = stepper_on(learner, "agreement", {"least": 0.1})
    for number in range(20):
        stepper.step(number)
    counts = np.bincount(np.concatenate(learner.seen))
    assert stepper.report["distinct_seen"] == 20 and counts.max() - counts.min() <= 1


def test_mixtures_and_gradients_that_are_no_numbers_are_one_message_each() -> None:
    with pytest.raises(ConfigError, match="a mixture has two labels and agrees with neither; leave mixup at 0"):
        stepper_on(perceptron(20), "agreement", {}, mixup=0.2)
    with pytest.raises(ConfigError, match="threshold"):
        stepper_on(perceptron(20), "agreement", {"threshold": 2})
    with pytest.raises(TrainingError, match="the loss of a case is nan, at step 3; try a smaller learning rate"):
        stepper_on(Cut(perceptron(20).module, torch.full((20, 6), torch.nan)), "agreement", {}).step(3)
