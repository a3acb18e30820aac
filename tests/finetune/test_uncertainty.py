from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import entropy as nats

from data_shards.support.errors import DataError
from data_shards.vocabulary import Task
from finetune.classifier.uncertainty import (
    deviation,
    entropy,
    expected_entropy,
    mutual_information,
    predictive_entropy,
)


def members(seed: int = 0, classes: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(classes), size=(5, 30))


def test_entropies_are_those_of_scipy() -> None:
    p_SNC = members()
    np.testing.assert_allclose(predictive_entropy(p_SNC, Task.multiclass), nats(p_SNC.mean(axis=0), axis=1))
    np.testing.assert_allclose(expected_entropy(p_SNC, Task.multiclass), nats(p_SNC, axis=2).mean(axis=0))
    np.testing.assert_allclose(
        predictive_entropy(p_SNC, Task.ordinal, normalised=True), nats(p_SNC.mean(axis=0), axis=1, base=4)
    )


def test_mutual_information_is_the_mean_divergence_of_the_members_from_their_mean() -> None:
    p_SNC = members()
    divergence_N = nats(p_SNC, p_SNC.mean(axis=0), axis=2).mean(axis=0)
    np.testing.assert_allclose(mutual_information(p_SNC, Task.multiclass), divergence_N, atol=1e-12)
    np.testing.assert_allclose(
        mutual_information(p_SNC, Task.multiclass, normalised=True), divergence_N / math.log(4), atol=1e-12
    )


def test_members_that_contradict_each_other_and_members_that_are_all_undecided() -> None:
    certain = np.array([[[1.0, 0.0]], [[0.0, 1.0]]])
    undecided = np.full((2, 1, 2), 0.5)
    for p_SNC, disagreement in ((certain, 1.0), (undecided, 0.0)):
        assert predictive_entropy(p_SNC, Task.binary) == pytest.approx(math.log(2))
        assert predictive_entropy(p_SNC, Task.binary, normalised=True) == pytest.approx(1)
        assert mutual_information(p_SNC, Task.binary, normalised=True) == pytest.approx(disagreement)


def test_several_labels_are_the_mean_over_them() -> None:
    p_SNL = np.random.default_rng(0).random((3, 20, 4))
    for function in (predictive_entropy, expected_entropy, mutual_information):
        each = [function(np.stack([1 - p, p], axis=2), Task.binary) for p in np.moveaxis(p_SNL, 2, 0)]
        np.testing.assert_allclose(function(p_SNL, Task.multilabel), np.mean(each, axis=0), atol=1e-12)
    assert entropy(np.full((1, 4), 0.5), Task.multilabel, normalised=True) == pytest.approx(1)


def test_numbers_have_the_deviation_of_their_members() -> None:
    values_SNL = np.random.default_rng(0).normal(size=(4, 6, 2))
    slow = [
        [math.sqrt(sum((v - sum(c) / 4) ** 2 for v in c) / 3) for c in case.T] for case in np.moveaxis(values_SNL, 1, 0)
    ]
    np.testing.assert_allclose(deviation(values_SNL), slow)


def test_what_has_no_uncertainty_is_refused() -> None:
    with pytest.raises(DataError, match="1 member shows no disagreement"):
        mutual_information(members()[:1], Task.multiclass)
    with pytest.raises(DataError, match="1 member shows no disagreement"):
        deviation(np.zeros((1, 3, 1)))
    with pytest.raises(DataError, match="a regression task has no probabilities"):
        entropy(np.zeros((3, 1)), Task.regression)
    with pytest.raises(DataError, match="do not add up to 1"):
        entropy(np.full((3, 2), 0.6), Task.binary)
    with pytest.raises(DataError, match="not between 0 and 1"):
        entropy(np.array([[np.nan, 1.0]]), Task.binary)
