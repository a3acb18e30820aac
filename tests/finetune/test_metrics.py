from __future__ import annotations

import numpy as np
import pytest
from medmnist.evaluator import getACC, getAUC
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.metrics import confusion_matrix as sklearn_confusion_matrix

from data_shards.support.errors import DataError
from data_shards.vocabulary import Task
from finetune.scores.metrics import accuracy, auc, balanced_accuracy, confusion_matrix

NAMES = {
    Task.binary: "binary-class",
    Task.multiclass: "multi-class",
    Task.ordinal: "ordinal-regression",
    Task.multilabel: "multi-label, binary-class",
}


def _random(task: Task, seed: int, *, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    if task is Task.multilabel:
        labels, scores = generator.integers(0, 2, size=(83, 14)), generator.random((83, 14))
    else:
        classes = 2 if task is Task.binary else 5
        labels = generator.permutation(np.arange(83) % classes)[:, None]
        scores = generator.dirichlet(np.ones(classes), size=83)
    return labels, scores.round(1) if ties else scores


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("task", NAMES)
def test_auc_and_accuracy_equal_the_medmnist_evaluator(task: Task, ties: bool) -> None:
    for seed in range(5):
        labels, scores = _random(task, seed, ties=ties)
        assert auc(labels, scores, task) == pytest.approx(getAUC(labels, scores, NAMES[task]), abs=1e-12)
        assert accuracy(labels, scores, task) == pytest.approx(getACC(labels, scores, NAMES[task]), abs=1e-12)


def test_binary_scores_may_be_one_column() -> None:
    labels, scores = _random(Task.binary, 0, ties=True)
    assert auc(labels, scores[:, 1], Task.binary) == auc(labels, scores, Task.binary)
    assert accuracy(labels[:, 0], scores[:, 1:], Task.binary) == accuracy(labels, scores, Task.binary)


@pytest.mark.parametrize("task", [Task.binary, Task.multiclass])
def test_balanced_accuracy_and_confusion_matrix_equal_scikit_learn(task: Task) -> None:
    labels, scores = _random(task, 3, ties=False)
    decided = scores.argmax(axis=1)
    assert balanced_accuracy(labels, scores, task) == pytest.approx(balanced_accuracy_score(labels[:, 0], decided))
    np.testing.assert_array_equal(confusion_matrix(labels, scores, task), sklearn_confusion_matrix(labels, decided))


def test_multilabel_balanced_accuracy_is_the_mean_over_labels() -> None:
    labels, scores = _random(Task.multilabel, 4, ties=False)
    expected = np.mean([balanced_accuracy_score(labels[:, k], scores[:, k] > 0.5) for k in range(14)])
    assert balanced_accuracy(labels, scores, Task.multilabel) == pytest.approx(expected)
    assert confusion_matrix(labels, scores, Task.multilabel).sum(axis=(1, 2)).tolist() == [83] * 14


def test_a_count_per_image_means_that_the_image_occurs_that_often() -> None:
    labels, scores = _random(Task.multiclass, 5, ties=True)
    counts = np.random.default_rng(0).integers(0, 4, size=(7, len(labels)))
    for score in (auc, accuracy, balanced_accuracy):
        repeated = [
            score(np.repeat(labels, row, axis=0), np.repeat(scores, row, axis=0), Task.multiclass) for row in counts
        ]
        np.testing.assert_allclose(score(labels, scores, Task.multiclass, counts), repeated, atol=1e-12)


def test_auc_is_nan_where_a_class_is_absent_and_one_where_it_is_perfect() -> None:
    scores = np.array([[0.9, 0.1], [0.2, 0.8]])
    assert np.isnan(auc(np.array([0, 0]), scores, Task.binary))
    assert auc(np.array([0, 1]), scores, Task.binary) == 1.0


def test_all_scores_tied_give_one_half() -> None:
    assert auc(np.array([0, 1, 0, 1, 1]), np.full(5, 0.3), Task.binary) == 0.5
    assert roc_auc_score([0, 1, 0, 1, 1], np.full(5, 0.3)) == 0.5


@pytest.mark.parametrize(
    ("labels", "scores", "task", "message"),
    [
        (np.zeros(3), np.zeros((2, 2)), Task.binary, "3 labels and 2 scores"),
        (np.array([0, 5]), np.zeros((2, 3)), Task.multiclass, "0 to 5, expected 0 to 2"),
        (np.array([0, 1]), np.array([0.1, np.nan]), Task.binary, "NaN"),
        (np.zeros((2, 3)), np.zeros((2, 4)), Task.multilabel, "3 labels but 4 score columns"),
        (np.zeros(2), np.zeros((2, 2)), Task.segmentation, "segmentation"),
    ],
)
def test_what_does_not_fit_is_refused(labels: np.ndarray, scores: np.ndarray, task: Task, message: str) -> None:
    with pytest.raises(DataError, match=message):
        auc(labels, scores, task)
