"""Robustness of a fitted classifier: its numbers recomputed from what it says of changed images."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from data_shards.support.errors import DataError
from finetune.classifier.estimator import FewLabelClassifier, FewLabelRegressor
from finetune.shift.corruptions import CORRUPTIONS
from finetune.shift.pictures import Change, corrupted
from finetune.shift.robustness import Robustness, measure
from finetune.shift.wording import told
from tests.finetune.samples import blobs, of_target, seeing_backbone

NAMES, LEVELS = ("contrast", "noise"), (1, 5)


@pytest.fixture(scope="module")
def fitted() -> FewLabelClassifier:
    return FewLabelClassifier(seeing_backbone(), head_options={"reads": "mean_spread"}).fit(blobs(40))


@pytest.fixture(scope="module")
def found(fitted: FewLabelClassifier) -> Robustness:
    return measured(fitted)


def measured(model: FewLabelClassifier) -> Robustness:
    corruptions = [CORRUPTIONS.named(name)() for name in NAMES]
    return measure(model.predictor_, blobs(60, seed=3), corruptions, LEVELS, replicates=200)


def test_every_score_is_that_of_what_the_classifier_says_of_changed_images(
    fitted: FewLabelClassifier, found: Robustness
) -> None:
    cases = blobs(60, seed=3)
    assert [(row.corruption, row.severity) for row in found.rows] == [
        ("", 0), ("contrast", 1), ("contrast", 5), ("noise", 1), ("noise", 5),
    ]  # fmt: skip
    clean = roc_auc_score(cases.targets, fitted.predict_proba(cases)[:, 1])
    errors = []
    for row in found.rows[1:]:
        change = Change(CORRUPTIONS.named(row.corruption)(), row.severity)
        said = fitted.predict_proba(corrupted(cases, [change], 0))[:, 1]
        assert row.scores["auc"].estimate == pytest.approx(roc_auc_score(cases.targets, said))
        assert row.changes["auc"].estimate == pytest.approx(roc_auc_score(cases.targets, said) - clean)
        errors.append(1 - balanced_accuracy_score(cases.targets, said > 0.5))
    overall = found.overall
    assert overall.scores["error"].estimate == pytest.approx(np.mean(errors))
    before = 1 - balanced_accuracy_score(cases.targets, fitted.predict_proba(cases)[:, 1] > 0.5)
    assert overall.changes["error"].estimate == pytest.approx(np.mean(errors) - before)
    assert overall.relative == pytest.approx(np.mean(errors) / before) if before else np.isnan(overall.relative)
    assert overall.changes["auc"].low < overall.changes["auc"].estimate < overall.changes["auc"].high
    assert {"calibration_error", "brier"} <= set(found.rows[0].scores) and found.cases == found.subjects == 60


def test_it_is_the_same_twice_and_what_is_drawn_does_not_depend_on_what_else_is_measured(
    fitted: FewLabelClassifier, found: Robustness
) -> None:
    assert repr(measured(fitted)) == repr(found)  # with what is not defined, which is not equal to itself
    alone = measure(fitted.predictor_, blobs(60, seed=3), [CORRUPTIONS.named("noise")()], (5,), replicates=200)
    assert repr(alone.rows[1]) == repr(found.rows[4])


def test_strong_noise_costs_more_than_weak_and_the_words_say_what_costs_most(found: Robustness) -> None:
    scores = {(row.corruption, row.severity): row.scores["auc"].estimate for row in found.rows}
    assert scores["", 0] > 0.9 and scores["noise", 5] < scores["noise", 1]
    lines = told(found)
    assert lines[0].startswith("AUC") and "Most is lost to" in lines[1] and "Mean corruption error" in lines[2]


def test_numbers_have_their_own_scores_and_no_calibration() -> None:
    model = FewLabelRegressor(seeing_backbone(), head_options={"reads": "mean_spread"}).fit(of_target("regression", 30))
    found = measure(
        model.predictor_, of_target("regression", 30, seed=4), [CORRUPTIONS.named("blur")()], (3,), replicates=100
    )
    assert "brier" not in found.rows[0].scores and "error" not in found.overall.scores
    kind = found.metrics[0]
    assert (kind.name, kind.rises) == ("r2", True) and found.rows[1].changes["r2"].estimate < 0
    assert len(told(found)) == 1


def test_labels_of_other_classes_are_refused(fitted: FewLabelClassifier) -> None:
    with pytest.raises(DataError, match="the labels are of other classes"):
        measure(fitted.predictor_, of_target("multiclass"), [CORRUPTIONS.named("blur")()], (1,))
