"""Every target has its metrics with intervals, and words that say where nothing was shown to be learnt."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error, r2_score

from data_shards.support.errors import DataError
from data_shards.vocabulary import Task
from finetune.cases import Cases
from finetune.scores.bootstrap import interval
from finetune.scores.metrics import auc
from finetune.scoring import Scores

NOT_LEARNT = "it is not shown that anything was learnt."


def _cases(labels: np.ndarray, task: Task, names: str = "ab", subjects: np.ndarray | None = None) -> Cases:
    count = len(labels)
    return Cases(
        "toy", np.zeros((count, 1, 8, 8), np.uint8), labels.reshape(count, -1), task, dict(enumerate(names)),
        np.arange(count), subjects=subjects,
    )  # fmt: skip


def _binary(count: int, skill: float, *, subjects: np.ndarray | None = None) -> Scores:
    labels = np.arange(count) % 2
    second = 1 / (1 + np.exp(-np.random.default_rng(0).normal(size=count) - skill * (labels - 0.5)))
    return Scores.of(_cases(labels, Task.binary, subjects=subjects), np.stack([1 - second, second], axis=1))


def _numbers(count: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    labels = generator.normal(size=(count, 1)) * 10
    return labels, labels + noise * generator.normal(size=labels.shape)


TOLD = {
    Task.binary: ["AUC 0.", "ACC 0.", "balanced ACC 0."],
    Task.multiclass: ["AUC 0.", "ACC 0.", "balanced ACC 0."],
    Task.multilabel: ["AUC 0.", "ACC 0.", "balanced ACC 0."],
    Task.ordinal: ["AUC 0.", "ACC 0.", "balanced ACC 0.", "weighted kappa 0.", "mean distance in classes 0."],
    Task.regression: ["R2 0.", "mean absolute error in units of the label ", "rank correlation 0."],
}


@pytest.mark.parametrize("task", TOLD)
def test_every_metric_of_the_target_is_scored_told_and_written(task: Task) -> None:
    generator = np.random.default_rng(0)
    names = "ab" if task is Task.binary else "age"
    if task is Task.regression:
        (labels, said), names = _numbers(40, 4.0), "a"
    elif task is Task.multilabel:
        labels = (np.arange(120).reshape(40, 3) % 4 < 2).astype(np.int64)
        said = np.clip(labels * 0.3 + generator.random(labels.shape) * 0.7, 0, 1)
    else:
        labels = (np.arange(40) % len(names))[:, None]
        said = np.eye(len(names))[labels[:, 0]] * 0.4 + 0.6 * generator.dirichlet(np.ones(len(names)), size=40)
    cases = _cases(labels, task, names, np.arange(40) // 2 if task is Task.regression else None)
    scores = Scores.of(cases, said, seed=1, replicates=200)
    assert tuple(scores.metrics) == tuple(kind.name for kind in cases.target.metrics)
    position = -1
    for words in TOLD[task]:
        assert scores.told.find(words) > position, scores.told
        position = scores.told.find(words)
    assert scores.told.endswith("40 images of 20 subjects" if task is Task.regression else "40 images")
    assert scores.learnt == ""
    written = json.loads(json.dumps(scores.as_json()))
    columns = scores.as_columns()
    for kind in cases.target.metrics:
        found = interval(
            kind.score, labels, said, task, seed=1, subjects=cases.subjects, replicates=200, limits=kind.limits
        )
        assert scores.metrics[kind.name] == found and not math.isnan(found.low)
        assert written[kind.name]["estimate"] == columns[kind.name] == found.estimate
        assert (columns[f"{kind.name}_low"], columns[f"{kind.name}_high"]) == (found.low, found.high)
    assert (written["images"], columns["test_images"], columns["test_subjects"]) == (40, 40, scores.subjects)
    if task is Task.regression:
        assert scores.confusion is None and "confusion" not in written
        assert scores.metric("r2").estimate == pytest.approx(r2_score(labels, said))
        assert scores.metric("mae").estimate == pytest.approx(mean_absolute_error(labels, said))
        with pytest.raises(DataError, match="these predictions have no auc; they have r2, mae, spearman"):
            _ = scores.auc
    else:
        assert scores.auc.estimate == float(auc(labels, said, task))
        assert np.sum(written["confusion"]) == (120 if task is Task.multilabel else 40)


def test_the_json_of_classes_keeps_its_flat_layout() -> None:
    written = _binary(40, 2.0).as_json()
    assert list(written)[:6] == ["images", "subjects", "lacking", "auc", "acc", "balanced_acc"]
    assert set(written["auc"]) == {"estimate", "low", "high", "level", "replicates", "seed"}


def test_guesses_are_said_to_show_nothing() -> None:
    scores = _binary(60, 0.0)
    assert scores.auc.low < 0.5 < scores.auc.high
    assert scores.learnt == f"The interval of the AUC includes 0.5: {NOT_LEARNT}"
    assert scores.told.endswith(f"60 images. {scores.learnt}")


def test_what_is_worse_than_guessing_is_said_to_be() -> None:
    scores = _binary(200, -2.0)
    assert scores.auc.high < 0.5
    assert scores.learnt == f"The AUC is worse than 0.5, which guessing gives: {NOT_LEARNT}"


@pytest.mark.parametrize("count", [4, 5, 6, 8, 10])
def test_a_handful_of_images_that_are_all_right_is_never_told_without_a_warning(count: int) -> None:
    labels = np.arange(count) % 2
    scores = Scores.of(_cases(labels, Task.binary), np.eye(2)[labels])
    assert scores.auc.estimate == 1.0 and scores.auc.low <= 0.5
    assert f"The interval of the AUC includes 0.5: {NOT_LEARNT}" in scores.told
    assert "1.000 (1.000" not in scores.told


def test_enough_images_that_are_all_right_are_told_without_one() -> None:
    labels = np.arange(40) % 2
    scores = Scores.of(_cases(labels, Task.binary), np.eye(2)[labels])
    assert scores.learnt == "" and 0.8 < scores.auc.low < 1


def test_the_only_subject_of_a_class_makes_an_estimate_that_cannot_be_trusted() -> None:
    scores = _binary(20, 1.0, subjects=np.where(np.arange(20) % 2, 99, np.arange(20)))
    assert math.isnan(scores.auc.low)
    assert scores.learnt == (
        "Nothing shows how far the AUC differs over subjects (20 images of 11 subjects): it cannot be trusted."
    )
    assert "(no interval)" in scores.told and scores.told.endswith(scores.learnt)


def test_a_class_that_is_lacking_leaves_the_auc_undefined() -> None:
    cases = _cases(np.zeros(6, np.int64), Task.binary)
    scores = Scores.of(cases, np.full((6, 2), 0.5))
    assert scores.learnt == f"The AUC is undefined (class 'b' has no image): {NOT_LEARNT}"
    assert scores.told.startswith("AUC undefined: class 'b' has no image, ACC 1.000, balanced ACC 1.000, 6 images.")
    assert "nan" not in scores.told


@pytest.mark.parametrize(
    ("noise", "count", "words"),
    [
        (3.0, 60, ""),
        (9.0, 60, f"The interval of the R2 includes 0: {NOT_LEARNT}"),
        (40.0, 60, f"The R2 is worse than 0, which guessing gives: {NOT_LEARNT}"),
        (0.0, 5, "Nothing shows how far the R2 differs over subjects (5 images): it cannot be trusted."),
    ],
)
def test_numbers_are_judged_by_the_variance_that_is_explained(noise: float, count: int, words: str) -> None:
    labels, said = _numbers(count, noise)
    assert Scores.of(_cases(labels, Task.regression, "a"), said).learnt == words


def test_errors_are_written_in_digits_that_fit_their_unit() -> None:
    labels, said = _numbers(60, 3.0)
    for unit, digits in ((1e-6, "e-06 ("), (1e3, " (")):
        told = Scores.of(_cases(unit * labels, Task.regression, "a"), unit * said).told
        assert digits in told.split("units of the label ")[1] and "0.000 (" not in told


def test_cases_without_labels_are_refused() -> None:
    cases = replace(_cases(np.zeros(2, np.int64), Task.binary), labels=None)
    with pytest.raises(DataError, match="toy: the cases have no labels"):
        Scores.of(cases, np.zeros((2, 2)))
