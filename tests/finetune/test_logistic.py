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


@pytest.mark.parametrize("strength", [1e-3, 0.1, 10.0])
@pytest.mark.parametrize(("images", "features"), [(60, 10), (40, 100)])
@pytest.mark.parametrize(("task", "classes"), [(Task.binary, 2), (Task.multiclass, 5)])
def test_coefficients_and_probabilities_equal_scikit_learn(
    task: Task, classes: int, images: int, features: int, strength: float
) -> None:
    inputs, labels = _problem(images, features, classes)
    ours = fit_logistic(inputs, labels[:, None], task, classes=classes, strength=strength)
    theirs = LogisticRegression(C=strength, tol=1e-10, max_iter=20_000).fit(inputs, labels)
    np.testing.assert_allclose(ours.weight_KD, theirs.coef_, atol=1e-4)
    np.testing.assert_allclose(ours.bias_K, theirs.intercept_, atol=1e-4)
    np.testing.assert_allclose(ours.predict_proba(inputs), theirs.predict_proba(inputs), atol=1e-5)


def test_balanced_weights_equal_those_of_scikit_learn() -> None:
    inputs, labels = _problem(60, 8, 3)
    rows = np.flatnonzero((labels > 0) | (np.arange(60) % 4 == 0))
    inputs, labels = inputs[rows], labels[rows]
    weights = balanced_weights(labels[:, None], Task.multiclass, 3)
    ours = fit_logistic(inputs, labels[:, None], Task.multiclass, classes=3, strength=1.0, weights=weights)
    theirs = LogisticRegression(C=1.0, class_weight="balanced", tol=1e-10, max_iter=20_000).fit(inputs, labels)
    np.testing.assert_allclose(ours.weight_KD, theirs.coef_, atol=1e-4)


def test_multilabel_is_one_regression_per_label() -> None:
    inputs, _ = _problem(50, 6, 2)
    labels = (inputs[:, :3] + np.random.default_rng(0).normal(size=(50, 3)) > 0).astype(np.int64)
    ours = fit_logistic(inputs, labels, Task.multilabel, classes=3, strength=0.5)
    for label in range(3):
        theirs = LogisticRegression(C=0.5, tol=1e-10, max_iter=20_000).fit(inputs, labels[:, label])
        np.testing.assert_allclose(ours.weight_KD[label], theirs.coef_[0], atol=1e-4)
        np.testing.assert_allclose(ours.predict_proba(inputs)[:, label], theirs.predict_proba(inputs)[:, 1], atol=1e-5)


def test_a_constant_feature_is_centred_and_gets_no_weight() -> None:
    inputs, labels = _problem(40, 5, 2)
    inputs[:, 4] = 7.0
    standard = Standardiser.of(inputs)(inputs)
    assert not standard[:, 4].any()
    fit = fit_logistic(standard, labels[:, None], Task.binary, classes=2, strength=1.0)
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
        fit_logistic(np.array([[np.nan], [1.0]]), np.array([[0], [1]]), Task.binary, classes=2, strength=1.0)
