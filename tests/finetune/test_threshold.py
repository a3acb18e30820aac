from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
from scipy.stats import beta
from sklearn.metrics import recall_score, roc_curve

from data_shards.support.errors import ConfigError, DataError
from data_shards.vocabulary import Task
from finetune.classifier.threshold import OperatingPoint, operating_point, sensitivity_specificity
from finetune.scores.bootstrap import paired_difference
from finetune.scores.decisions import sensitivity, specificity


def sample(cases: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels_N = (generator.random(cases) < 0.3).astype(np.int64)
    return labels_N, np.round(1 / (1 + np.exp(1 - 1.5 * labels_N - generator.normal(size=cases))), 2)  # with ties


@pytest.mark.parametrize("seed", range(5))
def test_the_best_threshold_has_the_largest_index_of_the_roc_curve(seed: int) -> None:
    labels_N, p_N = sample(seed=seed)
    false, true, _ = roc_curve(labels_N, p_N, drop_intermediate=False)
    point = operating_point(labels_N, p_N)
    assert point.sensitivity + point.specificity - 1 == pytest.approx((true - false).max())
    decided_N = point.decide(np.stack([1 - p_N, p_N], axis=1))[:, 0]
    assert point.sensitivity == pytest.approx(recall_score(labels_N, decided_N))
    assert point.specificity == pytest.approx(recall_score(labels_N, decided_N, pos_label=0))
    assert point.cases == ((labels_N == 0).sum(), labels_N.sum())


@pytest.mark.parametrize("wanted", [0.5, 0.9, 0.95, 1.0])
def test_a_wanted_share_is_reached_at_the_least_cost_of_the_other(wanted: float) -> None:
    labels_N, p_N = sample()
    false, true, _ = roc_curve(labels_N, p_N, drop_intermediate=False)
    point = operating_point(labels_N, p_N, sensitivity=wanted)
    assert point.sensitivity >= wanted
    assert point.specificity == pytest.approx((1 - false)[true >= wanted].max())
    point = operating_point(labels_N, p_N, specificity=wanted)
    assert point.specificity >= wanted
    assert point.sensitivity == pytest.approx(true[1 - false >= wanted - 1e-12].max())


def test_of_separated_classes_the_threshold_is_half_way() -> None:
    point = operating_point(np.array([[0], [0], [1], [1]]), np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.1, 0.9]]))
    assert (point.threshold, point.sensitivity, point.specificity) == pytest.approx((0.4, 1, 1))
    assert OperatingPoint.from_state(json.loads(json.dumps(point.state()))) == point


def test_of_equally_good_thresholds_the_most_sensitive_is_taken() -> None:
    # Above .25: 1 and 1/2; above .65: 1/2 and 1.
    point = operating_point(np.array([0, 1, 0, 1]), np.array([0.2, 0.3, 0.6, 0.7]))
    assert (point.threshold, point.sensitivity, point.specificity) == pytest.approx((0.25, 1, 0.5))


@pytest.mark.parametrize("least, most", [(0.0, 1.0), (0.3, 0.7)])
def test_thresholds_beyond_every_case_decide_all_one_way(least: float, most: float) -> None:
    labels_N, p_N = np.array([1, 0]), np.array([least, most])
    scores_NC = np.stack([1 - p_N, p_N], axis=1)
    assert operating_point(labels_N, p_N, sensitivity=1.0).decide(scores_NC).ravel().tolist() == [1, 1]
    assert operating_point(labels_N, p_N, specificity=1.0).decide(scores_NC).ravel().tolist() == [0, 0]


def test_intervals_are_exact_where_every_case_is_a_subject() -> None:
    labels_N = np.repeat([1, 0], [20, 30])
    p_N = np.repeat([0.9, 0.1, 0.8, 0.2], [17, 3, 0, 30])
    for subjects in (None, np.arange(50)):
        found, spared = sensitivity_specificity(labels_N, p_N, 0.5, seed=0, subjects=subjects)
        assert (found.estimate, spared.estimate) == (0.85, 1.0)
        # Clopper and Pearson: quantiles of beta distributions.
        assert (found.low, found.high) == pytest.approx((beta.ppf(0.025, 17, 4), beta.ppf(0.975, 18, 3)))
        assert (spared.low, spared.high) == pytest.approx((0.025 ** (1 / 30), 1.0))


def test_intervals_speak_of_subjects_where_these_have_several_cases() -> None:
    labels_N, p_N = sample(60)
    labels_M, p_M, subject_M = np.repeat(labels_N, 10), np.repeat(p_N, 10), np.repeat(np.arange(60), 10)
    once = sensitivity_specificity(labels_N, p_N, 0.4, seed=0)
    naive = sensitivity_specificity(labels_M, p_M, 0.4, seed=0)
    found = sensitivity_specificity(labels_M, p_M, 0.4, seed=0, subjects=subject_M)
    for by_subject, by_case, exact in zip(found, naive, once, strict=True):
        assert by_subject.estimate == pytest.approx(exact.estimate)
        width, of_exact = by_subject.high - by_subject.low, exact.high - exact.low
        assert 0.7 * of_exact < width < 1.3 * of_exact
        assert by_case.high - by_case.low < 0.5 * width


def test_intervals_of_clustered_subjects_cover_the_truth() -> None:
    generator, inside = np.random.default_rng(0), []
    truth = 0.8413447460685429  # of a normal variable above -1, the part of subjects and the part of cases together
    for _ in range(300):
        subject_N = np.repeat(np.arange(60), 5)
        labels_N = (subject_N % 2).astype(np.int64)
        noise_N = np.sqrt(0.7) * generator.normal(size=60)[subject_N] + np.sqrt(0.3) * generator.normal(size=300)
        p_N = 1 / (1 + np.exp(-np.where(labels_N == 1, noise_N + 1, noise_N - 1)))
        found = sensitivity_specificity(labels_N, p_N, 0.5, seed=0, subjects=subject_N, replicates=200)
        inside.append([each.low <= truth <= each.high for each in found])
    assert np.mean(inside) == pytest.approx(0.95, abs=0.03)


def test_one_subject_shows_no_spread() -> None:
    labels_N, p_N = np.array([1, 1, 0, 0]), np.array([0.9, 0.1, 0.1, 0.1])
    found, spared = sensitivity_specificity(labels_N, p_N, 0.5, seed=0, subjects=np.array([0, 0, 1, 1]))
    assert found.estimate == 0.5
    assert np.isnan([found.low, found.high]).all()
    assert (spared.estimate, spared.low, spared.high) == pytest.approx((1.0, 0.025, 1.0))


@pytest.mark.parametrize("score, label", [(sensitivity, 1), (specificity, 0)])
def test_scores_at_a_threshold_take_counts_and_are_compared(score, label: int) -> None:  # type: ignore[no-untyped-def]
    labels_N, p_N = sample()
    counts_RN = np.random.default_rng(0).integers(0, 4, size=(3, 200))
    at = partial(score, threshold=0.35)
    for count_N, found in zip(counts_RN, at(labels_N, p_N, Task.binary, counts_RN), strict=True):
        rows = np.repeat(np.arange(200), count_N)
        assert found == pytest.approx(recall_score(labels_N[rows], p_N[rows] > 0.35, pos_label=label))
    assert at(labels_N, np.stack([1 - p_N, p_N], axis=1), Task.binary) == at(labels_N, p_N, Task.binary)
    worse_N = np.clip(p_N - 0.2 if label else p_N + 0.2, 0, 1)
    better = paired_difference(at, labels_N, p_N, worse_N, Task.binary, seed=0, replicates=200)
    assert 0 < better.low < better.estimate
    assert np.isnan(at(np.full(3, 1 - label), p_N[:3], Task.binary))


def test_what_has_no_operating_point_is_refused() -> None:
    labels_N, p_N = sample()
    with pytest.raises(ConfigError, match="not for both"):
        operating_point(labels_N, p_N, sensitivity=0.9, specificity=0.9)
    with pytest.raises(ConfigError, match=r"wanted sensitivity is 90: not in \(0, 1\]"):
        operating_point(labels_N, p_N, sensitivity=90)
    with pytest.raises(DataError, match="cases of both classes"):
        operating_point(np.ones(200, np.int64), p_N)
    with pytest.raises(DataError, match="no case of the first class"):
        sensitivity_specificity(np.ones(200, np.int64), p_N, 0.5, seed=0)
    with pytest.raises(DataError, match="of a binary task, found multiclass"):
        sensitivity(labels_N, np.stack([p_N] * 3, axis=1), Task.multiclass)
