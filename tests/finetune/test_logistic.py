from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from data_shards.support.errors import DataError
from data_shards.vocabulary import Task
from finetune.logistic import DEFAULT_STRENGTH, STRENGTHS, Standardiser, fit_logistic, select_logistic
from finetune.objective import balanced_weights
from finetune.splits import selection_folds


def _problem(images: int, features: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(images + features)
    labels = np.arange(images) % classes
    inputs = generator.normal(size=(images, features))
    inputs[:, 0] += labels
    inputs[:, 1] = inputs[:, 2]  # an exactly repeated feature
    return inputs, labels


def _minimum(inputs: np.ndarray, labels: np.ndarray, strength: float, weights: np.ndarray | None = None) -> np.ndarray:
    """Probabilities of the minimum by Newton's method, which shares no line of code with L-BFGS."""
    exact = LogisticRegression(C=strength, solver="newton-cholesky", tol=1e-12, max_iter=1000)
    return exact.fit(inputs, labels, sample_weight=weights).predict_proba(inputs)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("images", "features"), [(60, 10), (40, 100), (300, 20)])
@pytest.mark.parametrize(("task", "classes"), [(Task.binary, 2), (Task.multiclass, 5), (Task.ordinal, 2)])
def test_the_whole_path_converges_to_the_minimum(task: Task, classes: int, images: int, features: int) -> None:
    inputs, labels = _problem(images, features, classes)
    path = fit_logistic(inputs, labels[:, None], task, classes=classes, strengths=STRENGTHS)
    for strength, fit in zip(STRENGTHS, path, strict=True):
        np.testing.assert_allclose(fit.predict_proba(inputs), _minimum(inputs, labels, strength), atol=1e-6)


def test_weighted_fits_have_the_slopes_of_scikit_learn_and_the_prior_of_the_given_labels() -> None:
    inputs, labels = _problem(60, 8, 3)
    rows = np.flatnonzero((labels > 0) | (np.arange(60) % 4 == 0))
    inputs, labels = inputs[rows], labels[rows]
    (fit,) = fit_logistic(inputs, labels[:, None], Task.multiclass, classes=3, strengths=[1.0], balanced=True)
    weights = balanced_weights(labels[:, None], Task.multiclass, 3)
    balanced = _minimum(inputs, labels, 1.0, weights)
    adjusted = balanced * np.bincount(labels)  # Saerens et al. 2002, equation 2.4
    np.testing.assert_allclose(fit.predict_proba(inputs), adjusted / adjusted.sum(axis=1, keepdims=True), atol=1e-6)


def test_multilabel_is_one_regression_per_label() -> None:
    inputs, _ = _problem(50, 6, 2)
    labels = (inputs[:, :3] + np.random.default_rng(0).normal(size=(50, 3)) > 0).astype(np.int64)
    labels = np.concatenate([labels, np.ones((50, 1), np.int64)], axis=1)  # the last label is on every image
    (fit,) = fit_logistic(inputs, labels, Task.multilabel, classes=4, strengths=[0.5])
    for label in range(3):
        np.testing.assert_allclose(
            fit.predict_proba(inputs)[:, label], _minimum(inputs, labels[:, label], 0.5)[:, 1], atol=1e-6
        )
    assert fit.predict_proba(inputs)[:, 3] == pytest.approx(50.5 / 51)


def test_a_class_without_an_image_is_refused() -> None:
    with pytest.raises(DataError, match="no image of class 1"):
        fit_logistic(np.eye(4), np.array([[0], [2], [2], [0]]), Task.multiclass, classes=3, strengths=[1.0])


def test_a_constant_feature_is_centred_and_gets_no_weight() -> None:
    inputs, labels = _problem(40, 5, 2)
    inputs[:, 4] = 7.0
    standard = Standardiser.of(inputs)(inputs)
    assert not standard[:, 4].any()
    (fit,) = fit_logistic(standard, labels[:, None], Task.binary, classes=2, strengths=[1.0])
    assert fit.weight_KD[0, 4] == pytest.approx(0, abs=1e-12)


def test_noise_is_shrunk_more_than_signal() -> None:
    generator = np.random.default_rng(0)
    labels = np.arange(60) % 2
    noise = generator.normal(size=(60, 50))
    signal = noise + 3 * labels[:, None]
    folds = selection_folds(labels, 0)
    chosen = [
        select_logistic(inputs, labels[:, None], Task.binary, classes=2, folds=folds, balanced=True)
        for inputs in (noise, signal)
    ]
    assert chosen[0].strength < chosen[1].strength
    assert set(chosen[0].held_out_loss) == set(STRENGTHS)


def test_without_folds_the_stated_default_is_used() -> None:
    inputs, labels = _problem(10, 4, 2)
    selection = select_logistic(inputs, labels[:, None], Task.binary, classes=2, folds=[], balanced=False)
    assert selection.strength == DEFAULT_STRENGTH
    assert selection.held_out_loss == {}


def test_features_that_are_not_finite_are_refused() -> None:
    with pytest.raises(DataError, match="NaN"):
        fit_logistic(np.array([[np.nan], [1.0]]), np.array([[0], [1]]), Task.binary, classes=2, strengths=[1.0])
