"""Estimates: cross-validation is nested, by subject, and says in words what it does not show."""

from __future__ import annotations

import numpy as np
import pytest

from data_shards.support.errors import DataError
from data_shards.vocabulary import Task
from finetune.cases import Cases
from finetune.classifier.estimate import chosen_point, cross_validated, scored_on
from finetune.classifier.estimator import FewLabelClassifier, FewLabelRegressor
from finetune.scores.bootstrap import interval
from finetune.scores.metrics import auc
from finetune.splits import stratified_folds

# Raw pixels are linear features whose truth is known, and cost next to nothing.
RAW = {"head_options": {"reads": "raw"}}


def spots(
    count: int, seed: int, *, shown: float, subjects: np.ndarray | None = None, task: Task = Task.binary
) -> Cases:
    """Noise, in half of them with a spot of brightness ``shown``."""
    rng = np.random.default_rng(seed)
    images = rng.integers(60, 140, (count, 1, 8, 8)).astype(np.float64)
    labels = np.arange(count) % 2
    images[labels == 1, :, 2:5, 2:5] += shown
    return Cases(
        name="spots",
        images=images.clip(0, 255).astype(np.uint8),
        labels=labels[:, None].astype(np.float64 if task is Task.regression else np.int64),
        task=task,
        classes={0: "size"} if task is Task.regression else {0: "without", 1: "with"},
        keys=np.array([f"image {place}" for place in range(count)]),
        official=False,
    )


def test_what_is_shown_is_found_and_the_repeats_are_averaged() -> None:
    cases = spots(40, 0, shown=40)
    model = FewLabelClassifier("medformer_nano", **RAW).fit(cases)
    found = cross_validated(model, cases, folds=4, repeats=2, seed=3)
    assert found.probabilities.shape == (2, 40, 2) and np.isfinite(found.probabilities).all()
    assert found.scores.auc.estimate > 0.9 and not found.scores.learnt
    single = [float(auc(cases.known_labels, each, Task.binary)) for each in found.probabilities]
    assert found.by_repeat == tuple(single)
    assert found.scores.auc.estimate == pytest.approx(np.mean(single))
    assert "4-fold cross-validation, repeated 2 times: AUC" in found.told[0]
    assert found.sensitivity is not None and found.sensitivity.estimate > 0.7
    assert found.point == chosen_point(model) and "sensitivity for 'with' is" in found.told[-1]


def test_every_case_is_told_by_a_fit_that_did_not_see_it() -> None:
    """The same fits by hand."""
    cases = spots(24, 1, shown=10)
    model = FewLabelClassifier("medformer_nano", seed=5, **RAW).fit(cases)
    found = cross_validated(model, cases, folds=3, repeats=1, seed=7).probabilities[0]
    fold_N = stratified_folds(cases.strata, 3, 7)
    for fold in range(3):
        by_hand = FewLabelClassifier("medformer_nano", seed=5, **RAW).fit(cases[fold_N != fold])
        np.testing.assert_array_equal(found[fold_N == fold], by_hand.predict_proba(cases[fold_N == fold]))


def test_labels_that_say_nothing_are_not_learnt_and_it_says_so() -> None:
    """With 64 pixels and 30 images, choices on the scored images would find something."""
    learnt = []
    for seed in range(8):
        cases = spots(30, seed, shown=0)
        found = cross_validated(FewLabelClassifier("medformer_nano", **RAW).fit(cases), cases, repeats=1, seed=seed)
        learnt.append(found.scores.auc.low > 0.5)
        if found.scores.auc.low <= 0.5:
            assert "not shown that anything was learnt" in found.told[0]
    assert sum(learnt) <= 1


def test_images_of_a_subject_stay_together() -> None:
    """Each subject has a pattern of its own and a random label: only a leak can tell the label."""
    rng = np.random.default_rng(0)
    subjects = np.repeat(np.arange(20), 4)
    label_S = rng.permutation(np.arange(20) % 2)
    pattern_S = rng.integers(0, 256, (20, 1, 8, 8))
    images = (pattern_S[subjects] + rng.integers(-5, 6, (80, 1, 8, 8))).clip(0, 255).astype(np.uint8)
    labels = label_S[subjects][:, None]
    cases = Cases("patterns", images, labels, Task.binary, {0: "a", 1: "b"}, np.arange(80), subjects=subjects)
    model = FewLabelClassifier("medformer_nano", **RAW).fit(cases)
    honest = cross_validated(model, cases, repeats=1)
    apart = Cases("patterns", images, labels, Task.binary, {0: "a", 1: "b"}, np.arange(80))
    leaking = cross_validated(FewLabelClassifier("medformer_nano", **RAW).fit(apart), apart, repeats=1)
    assert leaking.scores.auc.estimate > 0.95, "there is something to leak"
    assert honest.scores.auc.estimate < 0.8 and "by subject" in honest.how
    assert honest.scores.subjects == 20


def test_a_class_of_one_subject_has_no_estimate() -> None:
    cases = spots(7, 0, shown=40)[[0, 2, 4, 6, 1]]
    model = FewLabelClassifier("medformer_nano", **RAW).fit(cases)
    with pytest.raises(DataError, match="a class has a single subject"):
        cross_validated(model, cases)


def test_numbers_are_estimated_too() -> None:
    cases = spots(40, 2, shown=60, task=Task.regression)
    model = FewLabelRegressor("medformer_nano", **RAW).fit(cases)
    found = cross_validated(model, cases, repeats=1)
    assert found.scores.metric("r2").estimate > 0.5 and found.point is None
    assert "mean absolute error" in found.told[0]


def test_a_split_that_was_set_aside_is_scored_once_at_the_chosen_threshold() -> None:
    train, test = spots(40, 3, shown=20), spots(60, 4, shown=20)
    model = FewLabelClassifier("medformer_nano", **RAW).fit(train)
    found = scored_on(model, test, seed=0)
    said = model.predict_proba(test)
    np.testing.assert_array_equal(found.probabilities[0], said)
    assert found.scores.auc == interval(auc, test.known_labels, said, Task.binary, seed=0)
    assert found.point is not None and found.sensitivity is not None and found.specificity is not None
    positive = test.known_labels[:, 0] == 1
    assert found.sensitivity.estimate == np.mean(said[positive, 1] > found.point.threshold)
    assert found.specificity.estimate == np.mean(said[~positive, 1] <= found.point.threshold)


def test_one_black_image_does_not_cost_the_estimate() -> None:
    """The fold that holds it out has seen none like it; the classifier that is estimated has."""
    cases = spots(24, 0, shown=100)
    cases.images[0] = 0
    model = FewLabelClassifier("medformer_nano", **RAW).fit(cases)
    estimate = cross_validated(model, cases, folds=3, repeats=1)
    assert np.isfinite(estimate.probabilities).all()
    with pytest.raises(DataError, match="every value is 0"):  # of one that has not
        FewLabelClassifier("medformer_nano", **RAW).fit(cases[1:]).predict_proba(cases[:1])
