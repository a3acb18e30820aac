"""Proportional odds against high precision, against an independent likelihood, and where it is hard to converge."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from data_shards.support.errors import DataError
from finetune.targets import create_target
from finetune.targets.ordinal import Thresholds

STRENGTHS = tuple(10.0**exponent for exponent in range(-5, 2))


@pytest.mark.parametrize(
    "logits",
    [
        (0.3, -0.2, -1.0),
        (700.0, 0.0, -700.0),
        (800.0, 799.0, 798.0),
        (-798.0, -799.0, -800.0),
        (40.0, 40.0 - 1e-10, 39.0),
        (1e-12, 0.0, -1e-12),
        (5.0, -30.0, -30.5),
    ],
)
def test_log_probabilities_are_exact_also_at_the_ends(logits: tuple[float, ...]) -> None:
    found = create_target("ordinal", "abcd").log_scores(torch.tensor([logits], dtype=torch.float64))[0].tolist()
    with mpmath.workdps(800):
        above = [mpmath.mpf(1), *(1 / (1 + mpmath.exp(-mpmath.mpf(each))) for each in logits), mpmath.mpf(0)]
        expected = [float(mpmath.log(above[k] - above[k + 1])) for k in range(4)]
    assert found == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_thresholds_never_cross_wherever_training_takes_them() -> None:
    torch.manual_seed(0)
    link = Thresholds(4)
    assert torch.equal(link(torch.zeros(1, 1))[0], torch.tensor([1.5, 0.5, -0.5, -1.5]))
    target = create_target("ordinal", "abcde")
    # Labels that pull the thresholds the wrong way, at a rate that throws them about.
    labels = target.values(np.array([[4], [0], [3], [1], [2]] * 4))
    scores = torch.linspace(-3, 3, 5).repeat(4)[:, None]
    optimiser = torch.optim.SGD(link.parameters(), lr=10.0)
    for _ in range(50):
        optimiser.zero_grad()
        loss = target.loss(link(scores), labels).mean()
        loss.backward()
        optimiser.step()
        logits = link(scores).detach()
        assert torch.isfinite(loss) and (logits.diff(dim=1) <= 0).all()
        torch.testing.assert_close(target.log_scores(logits).exp().sum(dim=1), torch.ones(20), atol=1e-4, rtol=0)


def test_two_classes_have_a_single_threshold() -> None:
    assert Thresholds(1)(torch.tensor([[2.0]])).tolist() == [[2.0]]


def _problem(cases: int, features: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores with logistic noise, cut into classes of unequal size."""
    generator = np.random.default_rng(cases + features)
    inputs = generator.normal(size=(cases, features))
    inputs[:, 1] = inputs[:, 2]  # an exactly repeated feature
    hidden = inputs[:, 0] + inputs[:, 1] + generator.logistic(size=cases)
    cuts = np.quantile(hidden, (np.arange(1, classes) / classes) ** 1.5)
    return inputs, np.searchsorted(cuts, hidden)[:, None]


def _optimum(inputs: np.ndarray, labels: np.ndarray, strength: float, weights: np.ndarray | None) -> np.ndarray:
    """Class probabilities at the minimum of the likelihood as a difference of sigmoids, by BFGS and autograd."""
    classes, dim = labels.max() + 1, inputs.shape[1]
    inputs_ND, label_N = torch.from_numpy(inputs), torch.from_numpy(labels[:, 0])
    weights_N = torch.ones(len(labels), dtype=torch.float64) if weights is None else torch.from_numpy(weights)

    def probabilities(at: torch.Tensor) -> torch.Tensor:
        theta = torch.cat([at[dim : dim + 1], at[dim : dim + 1] + at[dim + 1 :].square().cumsum(0)])
        below = torch.sigmoid(theta - (inputs_ND @ at[:dim])[:, None])
        ends = torch.zeros(len(label_N), 1, dtype=torch.float64)
        return torch.cat([ends, below, ends + 1], dim=1).diff(dim=1)

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        at = torch.from_numpy(flat).requires_grad_()
        likelihood = probabilities(at)[torch.arange(len(label_N)), label_N]
        value = -(weights_N * likelihood.log()).sum() + at[:dim].square().sum() / (2 * strength)
        (gradient,) = torch.autograd.grad(value, at)
        return value.item(), gradient.numpy()

    start = np.concatenate([np.zeros(dim), [-1.0], np.ones(classes - 2)])
    found = minimize(objective, start, jac=True, method="BFGS", options={"gtol": 1e-9, "maxiter": 5000})
    return probabilities(torch.from_numpy(found.x)).numpy()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("cases", "features"), [(60, 10), (30, 50)])
def test_the_whole_path_converges_to_the_minimum(cases: int, features: int, weighted: bool) -> None:
    inputs, labels = _problem(cases, features, 4)
    target = create_target("ordinal", "abcd")
    weights = target.weights(labels) if weighted else None
    for strength, fit in zip(STRENGTHS, target.linear_path(inputs, labels, STRENGTHS, weights), strict=True):
        told = target.probabilities(target.log_scores(fit(inputs)).numpy())
        np.testing.assert_allclose(told, _optimum(inputs, labels, strength, weights), atol=1e-6)
        assert (np.diff(fit.bias_K) < 0).all()


@pytest.mark.parametrize("weighted", [False, True])
def test_of_two_classes_it_is_logistic_regression(weighted: bool) -> None:
    inputs, labels = _problem(50, 6, 2)
    ordinal, binary = create_target("ordinal", "ab"), create_target("binary", "ab")
    weights = binary.weights(labels) if weighted else None
    paths = [target.linear_path(inputs, labels, STRENGTHS, weights) for target in (ordinal, binary)]
    for one, other in zip(*paths, strict=True):
        np.testing.assert_allclose(
            ordinal.log_scores(one(inputs)).exp(), binary.log_scores(other(inputs)).exp(), atol=1e-7
        )


def test_scaled_weights_are_another_strength_and_a_case_of_weight_two_is_there_twice() -> None:
    inputs, labels = _problem(40, 5, 3)
    target = create_target("ordinal", "abc")
    twice = np.arange(40) % 3 == 0
    (weighted,) = target.linear_path(inputs, labels, [0.5], 1.0 + twice)
    rows = np.r_[np.arange(40), np.flatnonzero(twice)]
    (repeated,) = target.linear_path(inputs[rows], labels[rows], [0.5], None)
    (scaled,) = target.linear_path(inputs, labels, [0.05], 10.0 * (1.0 + twice))
    for other in (repeated, scaled):
        np.testing.assert_allclose(weighted.weight_KD, other.weight_KD, atol=1e-9)
        np.testing.assert_allclose(weighted.bias_K, other.bias_K, atol=1e-9)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("repeated", [False, True])
def test_classes_that_can_be_told_apart_converge_under_any_penalty(repeated: bool) -> None:
    inputs = np.arange(12.0)[:, None] - 5.5
    inputs = np.concatenate([inputs, inputs], axis=1) if repeated else inputs
    labels = (np.arange(12) // 4)[:, None]
    target = create_target("ordinal", "abc")
    strengths = [10.0**exponent for exponent in range(-12, 13, 2)]
    path = target.linear_path(inputs, labels, strengths, None)
    slopes = [fit.weight_KD[0].sum() for fit in path]
    assert np.isfinite(slopes).all() and (np.diff(slopes) > 0).all()
    told = target.probabilities(target.log_scores(path[-1](inputs)).numpy())
    assert told[np.arange(12), labels[:, 0]].min() > 1 - 1e-6
    np.testing.assert_allclose(path[-1].bias_K, -path[-1].bias_K[::-1], rtol=1e-5)  # the labels are symmetric


@pytest.mark.filterwarnings("error")
def test_features_that_repeat_each_other_or_are_constant_converge_under_hardly_any_penalty() -> None:
    inputs, labels = _problem(80, 6, 4)
    inputs = np.concatenate([inputs, np.full((80, 1), 7.0), 1e3 * inputs[:, :1]], axis=1)
    target = create_target("ordinal", "abcd")
    (fit,) = target.linear_path(inputs, labels, [1e12], None)
    assert fit.weight_KD[0, 6] == pytest.approx(0, abs=1e-12) and fit.weight_KD[0, 1] == pytest.approx(
        fit.weight_KD[0, 2]
    )
    weight, bias = (torch.from_numpy(each.copy()).requires_grad_() for each in (fit.weight_KD[0], fit.bias_K))
    logits = (torch.from_numpy(inputs) @ weight)[:, None] + bias
    for slope in torch.autograd.grad(target.loss(logits, target.values(labels)).mean(), (weight, bias)):
        np.testing.assert_allclose(slope, 0, atol=1e-9)


def test_labels_without_a_relation_to_the_inputs_give_the_prevalence() -> None:
    labels = np.array([0] * 6 + [1] * 3 + [2])[:, None]
    target = create_target("ordinal", "abc")
    (fit,) = target.linear_path(np.ones((10, 2)) * 0.0, labels, [1.0], None)
    np.testing.assert_allclose(target.log_scores(fit(np.zeros((1, 2)))).exp()[0], [0.6, 0.3, 0.1], atol=1e-9)


def test_a_class_without_a_case_or_a_weight_is_refused() -> None:
    target = create_target("ordinal", ["none", "mild", "severe"])
    labels = np.array([[0], [2], [2], [0]])
    with pytest.raises(DataError, match="no case of class 'mild' among the 4"):
        target.linear_path(np.eye(4), labels, [1.0], None)
    with pytest.raises(DataError, match="no case of class 'severe'"):
        target.linear_path(np.eye(4), np.array([[0], [1], [2], [0]]), [1.0], np.array([1.0, 1.0, 0.0, 1.0]))
    with pytest.raises(DataError, match="NaN"):
        target.linear_path(np.full((3, 1), np.nan), np.array([[0], [1], [2]]), [1.0], None)
