from __future__ import annotations

import numpy as np
import pytest
import torch

from data_shards.support.errors import DataError
from data_shards.vocabulary import Task
from finetune.features import embed
from finetune.probes import knn_probe, linear_probe
from finetune.splits import selection_folds
from pretrain.backbone import normalise
from tests.finetune.samples import blobs, tiny_backbone


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
    found = knn_probe(train, labels[:, None], test, Task.multiclass, classes=3, k=k)
    np.testing.assert_allclose(found.probabilities, _brute_force(train, labels, test, k, 3), atol=1e-12)


def test_knn_votes_for_every_label_of_a_multilabel_task() -> None:
    train = np.array([[1.0, 0.0], [0.0, 1.0]])
    labels = np.array([[1, 1, 0], [0, 1, 1]])
    found = knn_probe(train, labels, train, Task.multilabel, classes=3, k=1)
    np.testing.assert_allclose(found.probabilities, labels)


def test_k_is_clipped_to_the_images_there_are_and_reported() -> None:
    found = knn_probe(np.eye(3), np.array([[0], [1], [1]]), np.eye(3), Task.binary, classes=2)
    assert found.chosen["k"] == 3
    assert found.probabilities.shape == (3, 2)


def test_features_that_are_not_finite_are_refused() -> None:
    with pytest.raises(DataError, match="finite"):
        knn_probe(np.full((2, 2), np.nan), np.array([[0], [1]]), np.eye(2), Task.binary, classes=2)


def test_the_linear_probe_learns_what_is_linear() -> None:
    generator = np.random.default_rng(0)
    labels = np.arange(60) % 3
    features = generator.normal(size=(60, 6)) + 4 * np.eye(6)[labels]
    folds = selection_folds(labels, 0)
    found = linear_probe(features, labels[:, None], features, Task.multiclass, classes=3, folds=folds)
    assert (found.probabilities.argmax(axis=1) == labels).mean() > 0.95


def test_embedding_does_not_depend_on_the_batches_and_keeps_the_mode() -> None:
    backbone, images = tiny_backbone().train(), blobs(7)
    whole = embed(backbone, images.images, images.metadata)
    pieces = embed(backbone, images.images, images.metadata, batch_size=3)
    np.testing.assert_allclose(pieces, whole, atol=1e-5)
    assert backbone.training
    with torch.no_grad():
        direct = backbone.eval().features(normalise(torch.from_numpy(images.images)), images.metadata, dense=True)
    np.testing.assert_allclose(whole, direct.embedding_BD.numpy(), atol=1e-5)
    tokens = embed(backbone, images.images, images.metadata, reads="tokens")
    np.testing.assert_allclose(tokens, direct.tokens_BTD.numpy(), atol=1e-5)
