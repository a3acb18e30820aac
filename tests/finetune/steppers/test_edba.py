from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from data_shards.support.errors import ConfigError, TrainingError
from finetune.fit.learners import CachedLearner
from finetune.fit.network import Readout
from finetune.heads import CaseFeatures, create_head
from finetune.objective import Objective
from finetune.steppers.dba.subsets import random_subsets
from finetune.steppers.edba.batch_size import size_by_variation
from finetune.steppers.edba.margin import margin_loss
from finetune.strategies import Rates
from finetune.targets import create_target
from tests.finetune.steppers.learners import stepper_on

RATE = 0.05
"""Of the optimizer of :func:`stepper_on`."""


def learner_on(count: int, at_once: int = 1000, dropout: float = 0.0, head: str = "linear") -> CachedLearner:
    class Parts(CachedLearner):
        @property
        def at_once(self) -> int:
            return at_once

    torch.manual_seed(0)
    x = torch.randn(count, 6)
    x[:, 0] += 2.0 * (torch.arange(count) % 2)
    options: dict[str, Any] = (
        {"reads": "embedding", "dropout": dropout} if head == "linear" else {"heads": 2, "dropout": dropout}
    )
    features = CaseFeatures(x, tokens_BTD=torch.randn(count, 4, 6) + x[:, None])
    return Parts(Readout(create_head(head, 6, 1, options), None), features, Rates(RATE, 0.0, 1.0, 0.0))


@pytest.mark.parametrize("head", ["linear", "attention"])
@pytest.mark.parametrize("at_once", [1000, 3])
def test_selecting_everything_is_the_plain_stepper_bit_for_bit(at_once: int, head: str) -> None:
    found = []
    for name, options in (("plain", {}), ("edba", {"min_batch": 8}), ("edba", {"stride": 8})):
        learner = learner_on(20, at_once, dropout=0.4, head=head)
        stepper = stepper_on(learner, name, options)
        torch.manual_seed(7)
        for number in range(6):
            stepper.step(number)
        found.append((learner.module.state_dict(), torch.rand(2)))
    (plain, rest), *others = found
    for weights, after in others:
        assert all(torch.equal(plain[key], weights[key]) for key in plain) and torch.equal(rest, after)


@pytest.mark.parametrize("at_once", [1000, 3])
def test_the_best_of_the_candidates_is_learned_from(at_once: int) -> None:
    learner = learner_on(20, at_once)
    linear = learner.module.head.linear
    weight_D, bias = linear.weight.detach()[0].double(), linear.bias.detach().double()
    options = {"stride": 2, "candidates": 7, "margin": 2.0, "look_ahead": 3.0, "min_batch": 2}
    stepper = stepper_on(learner, "edba", options, batch_size=8)
    batch = np.random.default_rng(0).permutation(20)[:8]  # as the plain stepper draws it
    masks = random_subsets(7, np.array([2, 2, 2, 2]), 2, 8, np.random.default_rng([0, 3]))
    stepper.step(0)

    # By hand: a logistic regression has the gradient (p - y) x.
    x = learner._features.embedding_BD[torch.from_numpy(batch)].double()
    y = torch.from_numpy(batch % 2).double()
    error_B = torch.sigmoid(x @ weight_D + bias) - y
    tried = []
    for mask in masks:
        rows = torch.from_numpy(mask.repeat(2))
        step_D, step = (error_B[rows, None] * x[rows]).mean(dim=0), error_B[rows].mean()
        logit_B = x @ (weight_D - 3 * RATE * step_D) + bias - 3 * RATE * step
        tried.append((float(F.relu(2.0 - (2 * y - 1) * logit_B).mean()), step_D, step))
    margin, step_D, step = min(tried, key=lambda found: found[0])
    assert stepper._margins == pytest.approx([margin], rel=1e-5)
    factor = min(1.0, float(1 / (torch.cat([step_D, step[None]]).norm() + 1e-6)))
    torch.testing.assert_close(linear.weight[0].double(), weight_D - RATE * factor * step_D, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(linear.bias.double(), bias - RATE * factor * step, rtol=1e-4, atol=1e-6)


def test_margins_of_classes_and_of_labels() -> None:
    logits = torch.tensor([[2.0, 0.5, -1.0], [0.0, 3.0, 2.5]])
    many = create_target("multiclass", "abc")
    torch.testing.assert_close(margin_loss(many, logits, torch.tensor([0, 2]), 1.0), torch.tensor([0.0, 1.5]))
    two = create_target("binary", "ab")
    found = margin_loss(two, torch.tensor([[3.0], [0.25]]), torch.tensor([0, 1]), 1.0)
    torch.testing.assert_close(found, torch.tensor([4.0, 0.75]))
    labels = create_target("multilabel", "ab")
    found = margin_loss(labels, torch.tensor([[2.0, 0.5]]), torch.tensor([[1.0, 1.0]]), 1.0)
    torch.testing.assert_close(found, torch.tensor([0.25]))


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        (None, 0.5, 8),
        (1.0, 0.9, 10),
        (1.0, 0.91, 8),
        (1.0, 1.1, 8),
        (1.0, 1.11, 6),
        (0.0, 0.0, 10),  # as low as it can be
        (0.0, 0.1, 6),
    ],
)
def test_batches_grow_as_the_margin_loss_falls(before: float | None, now: float, expected: int) -> None:
    assert size_by_variation(8, before, now, 0.1, 2, 4, 12) == expected
    assert size_by_variation(12, 1.0, 0.0, 0.1, 2, 4, 12) == 12
    assert size_by_variation(4, 1.0, 2.0, 0.1, 2, 4, 12) == 4


def test_every_candidate_is_another_and_no_case_is_drawn_that_was_not_given() -> None:
    masks = random_subsets(16, np.array([2, 2, 2]), 2, 4, np.random.default_rng(0))
    assert len(masks) == 6 and len({mask.tobytes() for mask in masks}) == 6  # there are no more
    stepper = stepper_on(learner_on(40), "edba", {"stride": 1, "max_batch": 30, "delta": 4}, count=14)
    for number in range(30):
        stepper.step(number)
    report = stepper.report
    assert report["distinct_seen"] == 14 >= report["distinct_chosen"] > 0
    curves = report["batches"]
    assert len({len(values) for values in curves.values()}) == 1 and "margin_loss" in curves
    assert max(curves["batch_size"]) <= 14 and set(report["chosen_by_layer"]) == {"all layers"}


def test_what_has_no_margin_is_refused() -> None:
    with pytest.raises(ConfigError, match="a mixture has two right answers"):
        stepper_on(learner_on(20), "edba", {}, mixup=0.2)
    regression = Objective.of(
        create_target("regression", ["ml"]), np.arange(20.0)[:, None], balanced=False, drawn_evenly=False, loss="nll"
    )
    stepper = stepper_on(learner_on(20), "edba", {})
    with pytest.raises(ConfigError, match="a regression target has no margin"):
        type(stepper)(stepper.learner, regression, stepper.optimizer, stepper.rows, stepper.drawing, stepper.config)
    with pytest.raises(ConfigError, match="stride 9 is larger than the batch of 8"):
        stepper_on(learner_on(20), "edba", {"stride": 9})


def test_losses_and_gradients_that_are_no_numbers_stop_the_step() -> None:
    learner = learner_on(20)
    learner._features.embedding_BD[:] = torch.nan
    with pytest.raises(TrainingError, match="the loss of a case is nan, at step 2; try a smaller learning rate"):
        stepper_on(learner, "edba", {}).step(2)
