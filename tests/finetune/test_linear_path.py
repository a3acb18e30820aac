"""Logistic regression along a path of strengths, against another solver and by label."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from data_shards.support.errors import DataError
from finetune.targets import Affine, Target, create_target

STRENGTHS = tuple(10.0**exponent for exponent in range(-5, 2))


def _problem(images: int, features: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(images + features)
    labels = np.arange(images) % classes
    inputs = generator.normal(size=(images, features))
    inputs[:, 0] += labels
    inputs[:, 1] = inputs[:, 2]  # an exactly repeated feature
    return inputs, labels


def _minimum(inputs: np.ndarray, labels: np.ndarray, strength: float, weights: np.ndarray | None = None) -> np.ndarray:
    """Probabilities of the minimum by Newton's method, which shares no line of code with L-BFGS."""
    exact = LogisticRegression(C=strength, solver="newton-cg", tol=1e-12, max_iter=1000)
    return exact.fit(inputs, labels, sample_weight=weights).predict_proba(inputs)


def _told(target: Target, fit: Affine, inputs: np.ndarray, offset: np.ndarray | None = None) -> np.ndarray:
    offset_C = None if offset is None else torch.from_numpy(offset)
    return target.probabilities(target.log_scores(fit(inputs), offset_C).numpy())


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("images", "features"), [(60, 10), (40, 100), (300, 20)])
@pytest.mark.parametrize(("name", "classes"), [("binary", "ab"), ("multiclass", "abcde"), ("multiclass", "ab")])
def test_the_whole_path_converges_to_the_minimum(name: str, classes: str, images: int, features: int) -> None:
    inputs, labels = _problem(images, features, len(classes))
    target = create_target(name, classes)
    path = target.linear_path(inputs, labels[:, None], STRENGTHS, None)
    for strength, fit in zip(STRENGTHS, path, strict=True):
        assert fit.weight_KD.shape == (target.logits, features)
        np.testing.assert_allclose(_told(target, fit, inputs), _minimum(inputs, labels, strength), atol=1e-6)


def test_weighted_fits_have_the_slopes_of_scikit_learn_and_the_prior_of_the_given_labels() -> None:
    inputs, labels = _problem(60, 8, 3)
    rows = np.flatnonzero((labels > 0) | (np.arange(60) % 4 == 0))
    inputs, labels = inputs[rows], labels[rows]
    target = create_target("multiclass", "abc")
    weights = target.weights(labels[:, None])
    (fit,) = target.linear_path(inputs, labels[:, None], [1.0], weights)
    balanced = _minimum(inputs, labels, 1.0, weights)
    adjusted = balanced * np.bincount(labels)  # Saerens et al. 2002, equation 2.4
    told = _told(target, fit, inputs, target.offset(labels[:, None]))
    np.testing.assert_allclose(told, adjusted / adjusted.sum(axis=1, keepdims=True), atol=1e-6)


def test_multilabel_is_one_regression_per_label() -> None:
    inputs, _ = _problem(50, 6, 2)
    labels = (inputs[:, :3] + np.random.default_rng(0).normal(size=(50, 3)) > 0).astype(np.int64)
    labels = np.concatenate([labels, np.ones((50, 1), np.int64)], axis=1)  # the last label is on every image
    target = create_target("multilabel", "abcd")
    (fit,) = target.linear_path(inputs, labels, [0.5], None)
    told = _told(target, fit, inputs)
    for label in range(3):
        np.testing.assert_allclose(told[:, label], _minimum(inputs, labels[:, label], 0.5)[:, 1], atol=1e-6)
    assert told[:, 3] == pytest.approx(50.5 / 51)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("name", "classes"), [("binary", "ab"), ("multiclass", "abc")])
def test_classes_that_can_be_told_apart_converge_under_any_penalty(name: str, classes: str) -> None:
    inputs, labels = np.arange(12.0)[:, None] - 5.5, (np.arange(12) * len(classes) // 12)[:, None]
    target = create_target(name, classes)
    path = target.linear_path(inputs, labels, [10.0**exponent for exponent in range(-12, 11, 2)], None)
    slopes = [np.ptp(np.append(fit.weight_KD, 0)) for fit in path]
    assert np.isfinite(slopes).all() and (np.diff(slopes) > 0).all()
    assert _told(target, path[-1], inputs)[np.arange(12), labels[:, 0]].min() > 1 - 1e-6


@pytest.mark.parametrize("name", ["binary", "multiclass"])
def test_a_class_without_a_case_is_refused_by_its_name(name: str) -> None:
    target = create_target(name, ["well", "ill"])
    with pytest.raises(DataError, match="no case of class 'ill' among the 4 to be fitted to"):
        target.linear_path(np.eye(4), np.zeros((4, 1), np.int64), [1.0], None)


def test_a_constant_feature_gets_no_weight() -> None:
    inputs, labels = _problem(40, 5, 2)
    inputs[:, 4] = 0.0
    (fit,) = create_target("binary", "ab").linear_path(inputs, labels[:, None], [1.0], None)
    assert fit.weight_KD[0, 4] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("name", ["binary", "multilabel"])
def test_features_that_are_not_finite_are_refused(name: str) -> None:
    labels = np.array([[0, 1], [1, 0]])[:, : 1 if name == "binary" else 2]
    with pytest.raises(DataError, match="NaN"):
        create_target(name, "ab").linear_path(np.array([[np.nan], [1.0]]), labels, [1.0], None)
