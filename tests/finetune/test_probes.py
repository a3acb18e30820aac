from __future__ import annotations

import numpy as np
import pytest
import torch

from data_shards.support.errors import DataError
from finetune.fit.features import features_of, summaries
from finetune.splits import selection_folds
from finetune.study.probes import knn_probe, linear_probe
from finetune.targets import create_target
from pretrain.backbone import normalise
from tests.finetune.samples import blobs, tiny_backbone

TWO, THREE = create_target("binary", "ab"), create_target("multiclass", "abc")


def _brute_force(train: np.ndarray, labels: np.ndarray, test: np.ndarray, k: int, classes: int) -> np.ndarray:
    rows = []
    for vector in test:
        similarity = [float(vector @ other / np.sqrt((vector @ vector) * (other @ other))) for other in train]
        nearest = sorted(range(len(train)), key=lambda index: -similarity[index])[:k]
        votes = np.zeros(classes)
        for index in nearest:
            votes[labels[index]] += np.exp(similarity[index] / 0.07)
        rows.append(votes / votes.sum())
    return np.array(rows)


@pytest.mark.parametrize("k", [1, 5, 20])
def test_knn_equals_brute_force(k: int) -> None:
    generator = np.random.default_rng(k)
    train, test = generator.normal(size=(50, 8)), generator.normal(size=(17, 8))
    labels = generator.integers(0, 3, size=50)
    found = knn_probe(train, labels[:, None], test, THREE, k=k)
    np.testing.assert_allclose(found.probabilities, _brute_force(train, labels, test, k, 3), atol=1e-12)


def test_knn_votes_for_every_label_of_a_multilabel_task() -> None:
    train = np.array([[1.0, 0.0], [0.0, 1.0]])
    labels = np.array([[1, 1, 0], [0, 1, 1]])
    found = knn_probe(train, labels, train, create_target("multilabel", "abc"), k=1)
    np.testing.assert_allclose(found.probabilities, labels)


def test_k_is_clipped_to_the_images_there_are_and_reported() -> None:
    found = knn_probe(np.eye(3), np.array([[0], [1], [1]]), np.eye(3), TWO)
    assert found.chosen["k"] == 3
    assert found.probabilities.shape == (3, 2)


def test_features_that_are_not_finite_are_refused() -> None:
    with pytest.raises(DataError, match="finite"):
        knn_probe(np.full((2, 2), np.nan), np.array([[0], [1]]), np.eye(2), TWO)


def test_the_linear_probe_learns_what_is_linear() -> None:
    generator = np.random.default_rng(0)
    labels = np.arange(60) % 3
    features = generator.normal(size=(60, 6)) + 4 * np.eye(6)[labels]
    folds = selection_folds(labels, 0)
    found = linear_probe(features, labels[:, None], features, THREE, folds=folds)
    assert (found.probabilities.argmax(axis=1) == labels).mean() > 0.95


def test_knn_tells_the_mean_of_the_numbers_of_the_neighbours() -> None:
    train = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
    numbers = np.array([[10.0], [20.0], [90.0]])
    found = knn_probe(train, numbers, train[:1], create_target("regression", ["ml"]), k=2)
    near = np.exp((1 / np.sqrt(1.01) - 1) / 0.07)
    np.testing.assert_allclose(found.probabilities, [[(10 + 20 * near) / (1 + near)]])


def test_the_linear_probe_tells_numbers_in_their_units() -> None:
    generator = np.random.default_rng(0)
    features = generator.normal(size=(60, 4))
    numbers = 500 + 20 * features[:, :1] + generator.normal(scale=0.1, size=(60, 1))
    target = create_target("regression", ["ml"])
    found = linear_probe(features, numbers, features, target, folds=selection_folds(target.strata(numbers), 0))
    assert np.abs(found.probabilities - numbers).mean() < 1


def test_only_what_is_refitted_has_a_say() -> None:
    generator = np.random.default_rng(0)
    labels = np.arange(40) % 2
    features = generator.normal(size=(40, 3)) + labels[:, None]
    rows = np.arange(30)
    folds = [(rows, np.arange(30, 40))]
    found = linear_probe(features, labels[:, None], features, TWO, folds=folds, refit=rows)
    changed = features.copy()
    changed[30:] += 1e-9  # the strength stays, and so does the fit
    again = linear_probe(changed, labels[:, None], features, TWO, folds=folds, refit=rows)
    np.testing.assert_array_equal(found.probabilities, again.probabilities)
    with_all = linear_probe(features, labels[:, None], features, TWO, folds=folds)
    assert not np.array_equal(found.probabilities, with_all.probabilities)


def test_features_are_those_of_the_network_and_keep_its_mode() -> None:
    backbone, cases = tiny_backbone().train(), blobs(7)
    found = summaries(backbone, cases)
    assert backbone.training
    with torch.no_grad():
        direct = backbone.eval().features(normalise(torch.from_numpy(cases.images)), cases.metadata, dense=True)
    np.testing.assert_allclose(found.embedding_ND, direct.embedding_BD.numpy(), atol=1e-5)
    np.testing.assert_allclose(found.read("mean"), direct.tokens_BTD.mean(dim=1).numpy(), atol=1e-5)
    tokens = features_of(backbone, cases, dense=True).tokens
    np.testing.assert_allclose(tokens.numpy(), direct.tokens_BTD.numpy(), atol=1e-5)
    parts = [summaries(backbone, blobs(7)[part]).embedding_ND for part in (slice(0, 3), slice(3, 7))]
    np.testing.assert_allclose(np.concatenate(parts), found.embedding_ND, atol=1e-5)
