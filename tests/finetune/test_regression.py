"""Numbers: ridge regression in its closed form, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from data_shards.support.errors import DataError
from finetune.targets import create_target
from finetune.targets.regression import RegressionTarget

STRENGTHS = tuple(10.0**exponent for exponent in range(-5, 2))


def _problem(cases: int, features: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(cases + features)
    inputs = generator.normal(size=(cases, features)) + 1
    inputs[:, 1] = inputs[:, 2]  # an exactly repeated feature
    labels = inputs[:, :2] * [1.0, 50.0] + generator.normal(size=(cases, 2)) + [0.0, 1e4]
    return inputs, labels


def _closed_form(inputs: np.ndarray, labels: np.ndarray, strength: float, weights: np.ndarray) -> np.ndarray:
    """Predictions of the normal equations of ``strength sum_i w_i |y_i - x_i W - b|^2 / 2 + |W|^2 / 2``."""
    design = np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1)
    penalty = np.diag([1.0] * inputs.shape[1] + [0.0])
    weighted = design.T * weights
    return design @ np.linalg.solve(strength * weighted @ design + penalty, strength * weighted @ labels)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("cases", "features"), [(60, 10), (20, 50)])
def test_the_path_is_ridge_regression_on_standardised_labels(cases: int, features: int, weighted: bool) -> None:
    inputs, labels = _problem(cases, features)
    target = create_target("regression", ["size", "age"]).fitted_to(labels)
    weights = np.random.default_rng(0).uniform(0.5, 2, size=cases) if weighted else None
    path = target.linear_path(inputs, labels, STRENGTHS, weights)
    center, scale = labels.mean(axis=0), labels.std(axis=0)
    for strength, fit in zip(STRENGTHS, path, strict=True):
        expected = _closed_form(
            inputs, (labels - center) / scale, strength, np.ones(cases) if weights is None else weights
        )
        np.testing.assert_allclose(fit(inputs).numpy(), expected, atol=1e-8)
        told = target.probabilities(target.log_scores(fit(inputs)).numpy())
        np.testing.assert_allclose(told, expected * scale + center, rtol=1e-9)


def test_numbers_that_are_large_beside_their_spread_lose_nothing_to_float32() -> None:
    labels = 1e9 + np.arange(5.0)[:, None]
    target = create_target("regression", ["time"]).fitted_to(labels)
    told = target.log_scores(target.values(labels).float())
    np.testing.assert_allclose(told.numpy(), labels, rtol=0, atol=1e-6)
    assert target.log_loss(told, labels).max() < 1e-10


@pytest.mark.parametrize("value", [0.0, 0.1, 1e9 + 0.1])
def test_a_number_that_is_the_same_everywhere_is_refused(value: float) -> None:
    labels = np.stack([np.arange(10.0), np.full(10, value)], axis=1)
    with pytest.raises(DataError, match="^age: the number is the same in all 10 labelled cases$"):
        create_target("regression", ["size", "age"]).fitted_to(labels)


def test_strata_are_fifths_of_the_range_and_fewer_of_few_cases() -> None:
    target = create_target("regression", ["age"])
    labels = np.random.default_rng(0).permutation(50.0 * np.arange(20))[:, None]
    strata = target.strata(labels)
    assert np.bincount(strata).tolist() == [4] * 5
    assert all(labels[strata == k].max() < labels[strata == k + 1].min() for k in range(4))
    assert [len(np.unique(target.strata(labels[:count]))) for count in (1, 2, 3, 4, 9)] == [1, 1, 1, 2, 4]


@pytest.mark.parametrize(("center", "scale"), [([0.0], [0.0]), ([0.0, 1.0], [1.0, 1.0]), ([np.nan], [1.0])])
def test_a_center_or_scale_that_does_not_fit_is_refused(center: list[float], scale: list[float]) -> None:
    with pytest.raises(DataError, match="1 finite numbers each, scales above 0"):
        RegressionTarget(["age"], center, scale)


def test_features_that_are_not_finite_are_refused() -> None:
    with pytest.raises(DataError, match="NaN"):
        create_target("regression", ["age"]).linear_path(np.array([[np.nan], [1.0]]), np.eye(2)[:, :1], [1.0], None)


def test_the_loss_is_half_the_squared_error() -> None:
    target = create_target("regression", ["a", "b"])
    loss = target.loss(torch.tensor([[1.0, 2.0]]), target.values(np.array([[0.0, 4.0]])))
    assert loss.tolist() == [2.5]
