from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import expit, log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import brier_score_loss

from data_shards.support.errors import DataError
from data_shards.vocabulary import Task
from finetune.classifier.calibration import HIGHEST, LOWEST, fit_temperature, scaled_log_scores
from finetune.classifier.subjects import subject_weights
from finetune.scores.bootstrap import interval
from finetune.scores.calibration import brier, classwise_calibration_error, expected_calibration_error
from finetune.targets import create_target

CLASS_TASKS = ["binary", "multiclass", "ordinal"]


class Given(ClassifierMixin, BaseEstimator):
    """Gives out its inputs as log probabilities."""

    def fit(self, inputs: np.ndarray, labels: np.ndarray) -> Given:
        self.classes_ = np.unique(labels)
        self.n_features_in_ = inputs.shape[1]
        return self

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        return self.classes_[inputs.argmax(axis=1)]

    def decision_function(self, inputs: np.ndarray) -> np.ndarray:
        return (inputs[:, 1] - inputs[:, 0]) / 2 if len(self.classes_) == 2 else inputs  # it takes (-x, x)


def drawn(
    task: str, cases: int, temperature: float, seed: int = 0, spread: float = 2.0
) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from known probabilities, and log scores that are ``temperature`` times too sure."""
    generator = np.random.default_rng(seed)
    classes = 2 if task == "binary" else 4
    logits_NC = generator.normal(scale=spread, size=(cases, classes))
    if task == "multilabel":
        return temperature * logits_NC, (generator.random(logits_NC.shape) < expit(logits_NC)).astype(np.int64)
    labels_N1 = (softmax(logits_NC, axis=1).cumsum(axis=1) < generator.random((cases, 1))).sum(axis=1, keepdims=True)
    return log_softmax(temperature * logits_NC, axis=1), labels_N1


def target_of(task: str):  # type: ignore[no-untyped-def]
    return create_target(task, ["a", "b"] if task == "binary" else list("abcd"))


@pytest.mark.parametrize("task", [*CLASS_TASKS, "multilabel"])
@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_a_known_temperature_is_recovered(task: str, temperature: float) -> None:
    log_scores_NC, labels_NL = drawn(task, 20_000, temperature)
    found = fit_temperature(target_of(task), log_scores_NC, labels_NL)
    assert found == pytest.approx(temperature, rel=0.05)


@pytest.mark.parametrize("task", CLASS_TASKS)
def test_the_plain_minimum_is_that_of_scikit_learn(task: str) -> None:
    log_scores_NC, labels_NL = drawn(task, 300, 2.5)
    oracle = CalibratedClassifierCV(
        FrozenEstimator(Given().fit(log_scores_NC, labels_NL[:, 0])), method="temperature", cv=2, ensemble=False
    ).fit(log_scores_NC, labels_NL[:, 0])
    inverse = oracle.calibrated_classifiers_[0].calibrators[0].beta_
    found = fit_temperature(target_of(task), log_scores_NC, labels_NL, smoothing=0)
    assert found == pytest.approx(1 / inverse, rel=1e-4)
    target = target_of(task)
    np.testing.assert_allclose(
        target.probabilities(log_scores_NC, found), oracle.predict_proba(log_scores_NC), atol=1e-4
    )


@pytest.mark.parametrize("task", [*CLASS_TASKS, "multilabel"])
def test_no_neighbouring_temperature_is_better(task: str) -> None:
    log_scores_NC, labels_NL = drawn(task, 60, 2.0)
    target = target_of(task)
    found = fit_temperature(target, log_scores_NC, labels_NL, smoothing=0)

    def loss(temperature: float) -> float:
        if task == "multilabel":
            return float(np.logaddexp(0, log_scores_NC / temperature * np.where(labels_NL == 1, -1, 1)).sum())
        log_p_NC = log_softmax(log_scores_NC / temperature, axis=1)
        return -float(np.take_along_axis(log_p_NC, labels_NL, axis=1).sum())

    grid = np.geomspace(LOWEST, HIGHEST, 401)
    assert loss(found) <= min(loss(each) for each in grid) + 1e-9


def test_subjects_weigh_the_same_as_if_each_case_counted_by_its_share() -> None:
    log_scores_NC, labels_NL = drawn("multiclass", 40, 2.0)
    repeats_N = np.arange(40) % 5 + 1
    index_M = np.repeat(np.arange(40), repeats_N)
    repeated = fit_temperature(target_of("multiclass"), log_scores_NC[index_M], labels_NL[index_M], index_M)
    assert repeated == pytest.approx(fit_temperature(target_of("multiclass"), log_scores_NC, labels_NL), rel=1e-6)
    unweighted = fit_temperature(target_of("multiclass"), log_scores_NC[index_M], labels_NL[index_M])
    assert abs(unweighted - repeated) > 1e-3
    np.testing.assert_allclose(subject_weights(5, np.array(list("aabab"))), [1 / 3, 1 / 3, 1 / 2, 1 / 3, 1 / 2])


def test_when_every_case_is_right_certainty_is_that_of_so_many_right_ones() -> None:
    # One probability for all: at the minimum it is 1 - 1 / (G + 2), whatever the temperature has to be for that.
    target, cases = target_of("binary"), 30
    labels_NL = np.arange(cases)[:, None] % 2
    log_scores_NC = np.log(np.where(labels_NL == np.arange(2), 0.7, 0.3))
    found = fit_temperature(target, log_scores_NC, labels_NL)
    assert target.probabilities(log_scores_NC, found).max() == pytest.approx(1 - 1 / 32, abs=1e-6)
    assert fit_temperature(target, log_scores_NC, labels_NL, smoothing=0) == pytest.approx(LOWEST, rel=1e-4)
    wrong = fit_temperature(target, log_scores_NC, 1 - labels_NL)
    assert wrong == pytest.approx(HIGHEST, rel=1e-4)


@pytest.mark.parametrize("task", ["binary", "multiclass"])
@pytest.mark.parametrize("cases", [20, 50])
def test_with_tens_of_cases_counting_so_has_the_smaller_loss_on_new_ones(task: str, cases: int) -> None:
    target, losses = target_of(task), []
    new, new_NL = drawn(task, 2000, 1.0, seed=10_000, spread=5.0)
    for seed in range(100):
        given = drawn(task, cases, 1.0, seed=seed, spread=5.0)
        temperatures = [fit_temperature(target, *given, smoothing=each) for each in (None, 0)]
        scaled = [scaled_log_scores(target, torch.from_numpy(new), each) for each in temperatures]
        losses.append([float(target.log_loss(each, new_NL).mean()) for each in scaled])
    counted, plain = np.mean(losses, axis=0)
    assert counted < plain - 0.003


def test_few_subjects_and_numbers_have_temperature_one() -> None:
    log_scores_NC, labels_NL = drawn("binary", 38, 3.0)
    assert fit_temperature(target_of("binary"), log_scores_NC[:19], labels_NL[:19]) == 1.0
    assert fit_temperature(target_of("binary"), log_scores_NC, labels_NL, np.arange(38) // 2) == 1.0
    assert fit_temperature(target_of("binary"), log_scores_NC[:20], labels_NL[:20]) != 1.0
    numbers = np.random.default_rng(0).normal(size=(50, 1))
    regression = create_target("regression", ["age"])
    assert fit_temperature(regression, numbers, numbers * 2) == 1.0
    torch.testing.assert_close(scaled_log_scores(regression, torch.from_numpy(numbers), 2.0), torch.from_numpy(numbers))


def test_scores_that_do_not_fit_are_refused() -> None:
    log_scores_NC, labels_NL = drawn("binary", 20, 1.0)
    with pytest.raises(DataError, match=r"shape \(19, 2\) for 20 cases"):
        fit_temperature(target_of("binary"), log_scores_NC[1:], labels_NL)
    log_scores_NC[3, 0] = np.nan
    with pytest.raises(DataError, match="NaN or infinity"):
        fit_temperature(target_of("binary"), log_scores_NC, labels_NL)


@pytest.mark.parametrize("task", [*CLASS_TASKS, "multilabel"])
def test_scaling_lowers_the_errors_of_too_sure_predictions_on_new_cases(task: str) -> None:
    target, kind = target_of(task), Task[task]
    log_scores_NC, labels_NL = drawn(task, 200, 4.0, seed=1)
    temperature = fit_temperature(target, log_scores_NC, labels_NL)
    log_scores_NC, labels_NL = drawn(task, 2000, 4.0, seed=2)
    before, after = (target.probabilities(log_scores_NC, each) for each in (1.0, temperature))
    for score in (expected_calibration_error, classwise_calibration_error):
        for adaptive in (False, True):
            gap = [score(labels_NL, each, kind, adaptive=adaptive) for each in (before, after)]
            assert gap[0] > 0.06
            assert gap[1] < gap[0] / 2
    assert brier(labels_NL, after, kind) < brier(labels_NL, before, kind) - 0.01


def slow_ece(confidence: list[float], right: list[float], bins: int) -> float:
    """Bin by bin, case by case: Guo et al., eq. 3."""
    total = 0.0
    for m in range(bins):
        members = [i for i, c in enumerate(confidence) if m / bins < c <= (m + 1) / bins or (m == 0 and c == 0)]
        if members:
            accuracy = sum(right[i] for i in members) / len(members)
            total += len(members) * abs(accuracy - sum(confidence[i] for i in members) / len(members))
    return total / len(confidence)


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_calibration_errors_by_hand(bins: int) -> None:
    log_scores_NC, labels_NL = drawn("multiclass", 500, 2.0)
    p_NC = np.exp(log_scores_NC)
    right = (p_NC.argmax(axis=1) == labels_NL[:, 0]).astype(float)
    ours = expected_calibration_error(labels_NL, p_NC, Task.multiclass, bins=bins)
    assert ours == pytest.approx(slow_ece(p_NC.max(axis=1).tolist(), right.tolist(), bins), abs=1e-12)
    columns = [slow_ece(p_NC[:, k].tolist(), (labels_NL[:, 0] == k).astype(float).tolist(), bins) for k in range(4)]
    found = classwise_calibration_error(labels_NL, p_NC, Task.multiclass, bins=bins)
    assert found == pytest.approx(np.mean(columns), abs=1e-12)


def test_calibration_errors_are_those_of_torchmetrics() -> None:
    theirs = pytest.importorskip("torchmetrics.functional.classification")
    log_scores_NC, labels_NL = drawn("multiclass", 500, 2.0)
    p_NC, truth_N = torch.from_numpy(np.exp(log_scores_NC)), torch.from_numpy(labels_NL[:, 0])
    expected = float(theirs.multiclass_calibration_error(p_NC, truth_N, 4, n_bins=15))
    assert expected_calibration_error(labels_NL, p_NC.numpy(), Task.multiclass) == pytest.approx(expected, abs=1e-6)
    columns = [theirs.binary_calibration_error(p_NC[:, k].clone(), truth_N == k, n_bins=15) for k in range(4)]
    found = classwise_calibration_error(labels_NL, p_NC.numpy(), Task.multiclass)
    assert found == pytest.approx(float(np.mean(columns)), abs=1e-6)


def test_a_binary_error_is_of_what_is_decided_and_of_several_labels_the_mean() -> None:
    log_scores_NC, labels_NL = drawn("binary", 300, 3.0)
    p_NC = np.exp(log_scores_NC)
    right = ((p_NC[:, 1] > 0.5) == labels_NL[:, 0]).astype(float)
    slow = slow_ece(p_NC.max(axis=1).tolist(), right.tolist(), 15)
    for scores in (p_NC, p_NC[:, 1:], p_NC[:, 1]):
        assert expected_calibration_error(labels_NL, scores, Task.binary) == pytest.approx(slow, abs=1e-12)
    odds_NL, labels_NL = drawn("multilabel", 300, 3.0)
    p_NL = expit(odds_NL)
    for score in (expected_calibration_error, classwise_calibration_error, brier):
        each = [score(labels_NL[:, k], p_NL[:, k], Task.binary) for k in range(4)]
        assert score(labels_NL, p_NL, Task.multilabel) == pytest.approx(np.mean(each), abs=1e-12)


def test_adaptive_bins_hold_equally_many_cases_and_keep_equal_probabilities_together() -> None:
    # Four confidences, twice two cases each in two bins: |.55 - .5| and |.85 - 1|, each half of the cases.
    p = np.array([0.5, 0.6, 0.8, 0.9])
    scores = np.stack([1 - p, p], axis=1)
    labels = np.array([1, 1, 1, 1])  # 0.5 is not above 0.5, so the first is decided to be the first class
    found = expected_calibration_error(labels, scores, Task.binary, bins=2, adaptive=True)
    assert found == pytest.approx((abs(0.55 - 0.5) + abs(0.85 - 1)) / 2)
    same = np.tile([[0.3, 0.7]], (10, 1))
    labels = np.arange(10) % 2
    assert expected_calibration_error(labels, same, Task.binary, adaptive=True) == pytest.approx(0.2)


@pytest.mark.parametrize("task", [*CLASS_TASKS, "multilabel"])
def test_counts_are_repeated_cases_and_the_scores_have_intervals(task: str) -> None:
    kind = Task[task]
    log_scores_NC, labels_NL = drawn(task, 80, 2.0)
    p_NC = target_of(task).probabilities(log_scores_NC)
    counts_RN = np.random.default_rng(0).integers(0, 4, size=(3, 80))
    for score in (expected_calibration_error, classwise_calibration_error, brier):
        for count_N, found in zip(counts_RN, score(labels_NL, p_NC, kind, counts_RN), strict=True):
            rows = np.repeat(np.arange(80), count_N)
            assert found == pytest.approx(score(labels_NL[rows], p_NC[rows], kind), abs=1e-12)
        around = interval(score, labels_NL, p_NC, kind, seed=0, replicates=200)
        assert 0 < around.low < around.estimate < around.high < 1


def test_brier_is_that_of_scikit_learn() -> None:
    log_scores_NC, labels_NL = drawn("multiclass", 100, 1.0)
    theirs = brier_score_loss(labels_NL[:, 0], np.exp(log_scores_NC), scale_by_half=True, labels=range(4))
    assert brier(labels_NL, np.exp(log_scores_NC), Task.multiclass) == pytest.approx(theirs)
    log_scores_NC, labels_NL = drawn("binary", 100, 1.0)
    theirs = brier_score_loss(labels_NL[:, 0], np.exp(log_scores_NC[:, 1]))
    assert brier(labels_NL, np.exp(log_scores_NC), Task.binary) == pytest.approx(theirs)
