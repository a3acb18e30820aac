"""Every number of the table, computed again by scikit-learn and medmnist on one-hot labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from medmnist.evaluator import getACC, getAUC
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    recall_score,
    roc_auc_score,
)

from data_shards.support.errors import DataError
from data_shards.vocabulary import Task
from finetune.cases import Cases
from finetune.readers import read_cases
from finetune.scores.bootstrap import interval
from finetune.scores.precision import average_precision
from finetune.study.constant import constant
from finetune.study.measures import NOT_STATED, Measure, measured, metrics_of
from tests.finetune.samples import blobs

NAMES = {
    Task.binary: "binary-class",
    Task.multiclass: "multi-class",
    Task.ordinal: "ordinal-regression",
    Task.multilabel: "multi-label, binary-class",
}


def drawn(task: Task, seed: int = 0, count: int = 83, *, ties: bool = False) -> tuple[Cases, np.ndarray]:
    """Cases with labels of a task, and random probabilities of them."""
    generator = np.random.default_rng(seed)
    classes = 2 if task is Task.binary else 4
    if task is Task.multilabel:
        labels, said = generator.integers(0, 2, size=(count, classes)), generator.random((count, classes))
    else:
        labels = generator.permutation(np.arange(count) % classes)[:, None]
        said = generator.dirichlet(np.ones(classes), size=count)
    if ties:
        said = said.round(1)
    like = blobs(count, side=4)
    return replace(like, labels=labels, task=task, classes={k: f"class {k}" for k in range(classes)}), said


def one_hot(cases: Cases) -> np.ndarray:
    labels = cases.known_labels
    if cases.task is Task.multilabel:
        return labels
    return np.eye(len(cases.classes), dtype=np.int64)[labels[:, 0]]


def by_key(found: list[Measure]) -> dict[tuple[str, str, str, str], Measure]:
    keyed = {measure.key: measure for measure in found}
    assert len(keyed) == len(found)
    return keyed


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("task", NAMES)
def test_scores_of_all_cases_are_those_of_medmnist_and_scikit_learn(task: Task, ties: bool) -> None:
    for seed in range(3):
        cases, said = drawn(task, seed, ties=ties)
        found = by_key(list(measured(cases, said, replicates=20)))
        truth, decided = one_hot(cases), said.argmax(axis=1)

        def value(metric: str, found: dict[tuple[str, str, str, str], Measure] = found) -> float:
            return found["", "", "", metric].value.estimate

        labels, name = cases.known_labels, NAMES[task]
        assert value("auc") == pytest.approx(getAUC(labels, said, name), abs=1e-6)
        assert value("acc") == pytest.approx(getACC(labels, said, name), abs=1e-6)
        columns = slice(1, 2) if task is Task.binary else slice(None)
        precision = average_precision_score(truth[:, columns], said[:, columns], average="macro")
        assert value("average_precision") == pytest.approx(precision, abs=1e-9)
        if task is Task.multilabel:
            squared = np.mean([brier_score_loss(truth[:, k], said[:, k]) for k in range(4)])
            balanced = np.mean([balanced_accuracy_score(truth[:, k], said[:, k] > 0.5) for k in range(4)])
        else:
            squared = ((said - truth) ** 2).sum(axis=1).mean() / 2
            decided = (said[:, 1] > 0.5).astype(int) if task is Task.binary else decided
            balanced = balanced_accuracy_score(labels[:, 0], decided)
        assert value("brier") == pytest.approx(squared, abs=1e-9)
        assert value("balanced_acc") == pytest.approx(balanced, abs=1e-9)


def test_the_calibration_error_is_the_mean_gap_over_fifteen_bins() -> None:
    cases, said = drawn(Task.multiclass, 5)
    confidence, right = said.max(axis=1), said.argmax(axis=1) == cases.known_labels[:, 0]
    gap = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        if inside.any():
            gap += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    found = by_key(list(measured(cases, said, replicates=20)))
    assert found["", "", "", "ece"].value.estimate == pytest.approx(gap, abs=1e-9)


@pytest.mark.parametrize("task", NAMES)
def test_scores_of_a_class_are_those_of_its_column_of_one_hot_labels(task: Task) -> None:
    cases, said = drawn(task, 2)
    found = by_key(list(measured(cases, said, replicates=20)))
    truth = one_hot(cases)
    if task is Task.multilabel:
        decided = (said > 0.5).astype(int)
    else:
        top = (said[:, 1] > 0.5).astype(int) if task is Task.binary else said.argmax(axis=1)
        decided = np.eye(len(cases.classes), dtype=int)[top]
    for k, name in cases.classes.items():
        expected = {
            "auc": roc_auc_score(truth[:, k], said[:, k]),
            "average_precision": average_precision_score(truth[:, k], said[:, k]),
            "brier": brier_score_loss(truth[:, k], said[:, k]),
            "sensitivity": recall_score(truth[:, k], decided[:, k]),
            "specificity": recall_score(truth[:, k], decided[:, k], pos_label=0),
        }
        own = {metric: each.value.estimate for (_, _, label, metric), each in found.items() if label == name}
        assert own == pytest.approx(expected, abs=1e-9)


def test_a_group_is_scored_as_if_there_were_no_other_cases() -> None:
    cases, said = drawn(Task.multiclass, 3)
    site = np.array(["b", "a", ""])[np.arange(len(cases)) % 3]
    subjects = np.arange(len(cases)) // 2
    cases = replace(cases, groups={"site": site}, subjects=subjects)
    found = by_key(list(measured(cases, said, seed=7, replicates=50)))
    assert {(by, group) for by, group, _, _ in found} == {
        ("", ""),
        ("site", "a"),
        ("site", "b"),
        ("site", NOT_STATED),
    }
    for value, name in (("a", "a"), ("b", "b"), ("", NOT_STATED)):
        rows = np.flatnonzero(site == value)
        alone = replace(cases[rows], groups={})
        for metric in metrics_of(cases.target):
            measure = found["site", name, "", metric.name]
            expected = interval(
                metric.score, alone.known_labels, said[rows], cases.task, seed=7, subjects=subjects[rows], replicates=50
            )
            assert measure.value == expected
            assert (measure.images, measure.subjects) == (len(rows), len(set(subjects[rows])))


def test_what_a_group_lacks_is_named_and_what_needs_two_classes_is_not_defined() -> None:
    cases, said = drawn(Task.binary, 1)
    site = np.where(cases.known_labels[:, 0] == 1, "sick", "mixed")
    site[:4] = "mixed"
    found = by_key(list(measured(replace(cases, groups={"site": site}), said, replicates=20)))
    lonely = found["site", "sick", "", "auc"]
    assert np.isnan(lonely.value.estimate) and lonely.lacking == "class 'class 0' has no image"
    assert np.isnan(found["site", "sick", "", "average_precision"].value.estimate)
    assert found["", "", "", "auc"].lacking == ""


def test_average_precision_counts_a_case_as_often_as_it_is_told_and_is_nan_without_one() -> None:
    cases, said = drawn(Task.multiclass, 4, ties=True)
    labels = cases.known_labels
    counts = np.random.default_rng(0).integers(0, 4, size=(7, len(labels)))
    repeated = [
        average_precision(np.repeat(labels, row, axis=0), np.repeat(said, row, axis=0), cases.task) for row in counts
    ]
    np.testing.assert_allclose(average_precision(labels, said, cases.task, counts), repeated, atol=1e-12)
    for label in (0, 1):
        assert np.isnan(average_precision(np.full(3, label), np.array([0.1, 0.2, 0.3]), Task.binary))
    everywhere = np.array([[1, 1], [0, 1], [1, 1]])
    assert np.isnan(average_precision(everywhere, np.array([[0.1, 0.2]] * 3), Task.multilabel))
    with_and_without = average_precision(
        np.array([0, 1, 1]), np.array([0.2, 0.9, 0.1]), Task.binary, np.array([[1, 1, 1], [0, 1, 1], [1, 0, 0]])
    )
    assert np.isnan(with_and_without).tolist() == [False, True, True]
    assert average_precision(np.array([0, 1]), np.array([0.2, 0.9]), Task.binary) == 1.0
    with pytest.raises(DataError, match="3 labels and 2 scores"):
        average_precision(np.zeros(3), np.zeros((2, 2)), Task.binary)


def test_a_constant_says_the_shares_of_training_and_decides_the_commonest_class() -> None:
    cases, _ = drawn(Task.multiclass, 0, 40)
    labels = np.array([[2]] * 25 + [[0]] * 10 + [[1]] * 3 + [[3]] * 2)
    train = replace(cases, labels=labels)
    said = constant(train, 5)
    np.testing.assert_allclose(said, np.tile([10 / 40, 3 / 40, 25 / 40, 2 / 40], (5, 1)))
    found = by_key(list(measured(cases, constant(train, 40), replicates=20)))
    assert found["", "", "", "acc"].value.estimate == np.mean(cases.known_labels[:, 0] == 2)
    assert found["", "", "", "auc"].value.estimate == 0.5
    assert found["", "", "", "balanced_acc"].value.estimate == 0.25
    assert found["", "", "class 2", "sensitivity"].value.estimate == 1.0


def test_the_trivial_accuracies_are_those_that_are_known_of_the_published_sets(shared_data: Path) -> None:
    for name, expected in (("breastmnist", 0.7308), ("retinamnist", 0.4350)):
        splits = read_cases(shared_data / "medmnist" / f"{name}.npz")
        said = constant(splits["train"], len(splits["test"]))
        assert getACC(splits["test"].known_labels, said, NAMES[splits["test"].task]) == pytest.approx(
            expected, abs=1e-4
        )
