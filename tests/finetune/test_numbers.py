"""Scores of numbers and of ordered classes, against scikit-learn and scipy; counts are repeated rows."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import cohen_kappa_score, mean_absolute_error, r2_score

from data_shards.support.errors import DataError
from data_shards.vocabulary import Task
from finetune.scores.metrics import Score
from finetune.scores.numbers import absolute_error, absolute_error_of_classes, quadratic_kappa, r_squared, spearman

NUMBERS = (absolute_error, r_squared, spearman)
CLASSES = (absolute_error_of_classes, quadratic_kappa)


def _numbers(seed: int, columns: int = 1, *, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = generator.normal(size=(61, columns)) * 10
    said = labels * 0.7 + generator.normal(size=labels.shape) * 5
    return (labels.round(), said.round()) if ties else (labels, said)


def _classes(seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 4, size=(61, 1))
    return labels, generator.dirichlet(np.ones(4), size=61) + 0.4 * np.eye(4)[labels[:, 0]]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("columns", [1, 3])
def test_scores_of_numbers_equal_scikit_learn_and_scipy(columns: int, ties: bool) -> None:
    for seed in range(5):
        labels, said = _numbers(seed, columns, ties=ties)
        assert absolute_error(labels, said, Task.regression) == pytest.approx(mean_absolute_error(labels, said))
        assert r_squared(labels, said, Task.regression) == pytest.approx(r2_score(labels, said))
        by_column = [spearmanr(labels[:, k], said[:, k]).statistic for k in range(columns)]
        assert spearman(labels, said, Task.regression) == pytest.approx(np.mean(by_column))


def test_scores_of_ordered_classes_equal_scikit_learn() -> None:
    for seed in range(5):
        labels, scores = _classes(seed)
        decided = scores.argmax(axis=1)
        kappa = cohen_kappa_score(labels[:, 0], decided, weights="quadratic")
        assert quadratic_kappa(labels, scores, Task.ordinal) == pytest.approx(kappa)
        assert absolute_error_of_classes(labels, scores, Task.ordinal) == pytest.approx(
            mean_absolute_error(labels[:, 0], decided)
        )


@pytest.mark.parametrize("score", [*NUMBERS, *CLASSES])
def test_a_count_per_case_means_that_the_case_occurs_that_often(score: Score) -> None:
    task = Task.regression if score in NUMBERS else Task.ordinal
    labels, scores = _numbers(5, 2, ties=True) if score in NUMBERS else _classes(5)
    counts = np.random.default_rng(0).integers(0, 4, size=(7, len(labels)))
    repeated = [score(np.repeat(labels, row, axis=0), np.repeat(scores, row, axis=0), task) for row in counts]
    np.testing.assert_allclose(score(labels, scores, task, counts), repeated, atol=1e-12)
    assert score(labels, scores, task, counts[0]) == pytest.approx(repeated[0])
    np.testing.assert_allclose(score(labels, scores, task, counts / 3), repeated, atol=1e-12)


@pytest.mark.parametrize("offset", [0.0, 1e9])
def test_where_the_numbers_lie_does_not_matter(offset: float) -> None:
    labels, said = _numbers(0, ties=True)
    for score in NUMBERS:
        moved = score(labels + offset, said + offset, Task.regression)
        assert moved == pytest.approx(float(score(labels, said, Task.regression)), rel=1e-9)


def test_what_is_not_defined_is_nan_in_that_replicate_alone() -> None:
    labels, said = np.array([0.1, 0.1, 0.1, 7.3]), np.array([1.0, 2.0, 3.0, 4.0])
    counts = np.array([[1, 1, 1, 0], [1, 1, 1, 1], [0.1, 0.7, 1.3, 0]])
    for score in (r_squared, spearman):
        assert np.isnan(score(labels, said, Task.regression, counts)).tolist() == [True, False, True]
        assert math.isnan(score(np.full(4, 0.1), said, Task.regression))
    assert math.isnan(spearman(said, np.full(4, 0.1), Task.regression))
    all_of_one = np.eye(3)[[2, 2, 2, 0]]
    kappa = quadratic_kappa(np.array([2, 2, 2, 1]), all_of_one, Task.ordinal, counts)
    assert np.isnan(kappa).tolist() == [True, False, True]


def test_a_constant_guess_explains_nothing_and_a_worse_one_less() -> None:
    labels = np.array([1.0, 2.0, 6.0])
    assert r_squared(labels, np.full(3, 3.0), Task.regression) == pytest.approx(0)
    assert r_squared(labels, labels[::-1], Task.regression) < 0
    assert quadratic_kappa(np.arange(3), np.eye(3)[[1, 1, 1]], Task.ordinal) == pytest.approx(0)


@pytest.mark.parametrize(
    ("score", "labels", "scores", "message"),
    [
        (absolute_error, np.zeros(3), np.zeros(2), r"\(3, 1\) and scores of shape \(2, 1\)"),
        (r_squared, np.zeros((3, 2)), np.zeros((3, 1)), r"\(3, 2\) and scores of shape \(3, 1\)"),
        (spearman, np.array([0.0, np.nan]), np.zeros(2), "NaN"),
        (quadratic_kappa, np.array([0, 5]), np.zeros((2, 3)), "0 to 5, expected 0 to 2"),
    ],
)
def test_what_does_not_fit_is_refused(score: Score, labels: np.ndarray, scores: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        score(labels, scores, Task.regression if score in NUMBERS else Task.ordinal)
