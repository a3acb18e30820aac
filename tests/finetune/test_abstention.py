from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import beta, binomtest

from data_shards.support.errors import DataError
from data_shards.vocabulary import Task
from finetune.classifier.abstention import SHARES, ConfidenceRule, abstains, confidence_threshold


def test_a_set_of_several_of_none_or_without_the_decision_is_no_answer() -> None:
    sets = np.array([[True, True], [True, False], [False, False], [True, False]])
    assert abstains(sets, np.array([[0], [0], [0], [1]])).tolist() == [True, False, True, True]
    several = np.array([[[True, False], [True, True], [False, False], [False, True]]])
    assert abstains(several, np.array([[0, 1, 0, 1]])).tolist() == [[False, True, True, False]]
    assert abstains(several, np.array([[1, 1, 0, 1]])).tolist() == [[True, True, True, False]]


def test_the_threshold_answers_the_most_that_the_error_allows() -> None:
    #  confidence     .95   .9    .8     .7     .6    .55
    #  decision       right right wrong  right  right wrong
    second_N = np.array([0.95, 0.1, 0.8, 0.7, 0.4, 0.55])
    labels_N = np.array([1, 0, 0, 1, 0, 0])
    p_NC = np.stack([1 - second_N, second_N], axis=1)
    for max_error, threshold, answered, error in (
        (0.0, 0.9, 2 / 6, 0.0),
        (0.19, 0.9, 2 / 6, 0.0),
        (0.2, 0.6, 5 / 6, 0.2),  # though three would have one in three wrong
        (0.34, 0.55, 1.0, 2 / 6),
    ):
        rule = confidence_threshold(p_NC, labels_N, Task.binary, max_error)
        assert (rule.threshold, rule.answered, rule.error) == pytest.approx((threshold, answered, error))
        exact = binomtest(round(error * answered * 6), round(answered * 6)).proportion_ci(0.9, "exact").high
        assert rule.error_high == pytest.approx(exact)
        assert rule.answers(p_NC, Task.binary).mean() == pytest.approx(answered)


def test_equal_probabilities_are_answered_together() -> None:
    p_N = np.array([0.9, 0.9, 0.9, 0.6])
    rule = confidence_threshold(p_N, np.array([1, 1, 0, 1]), Task.binary, 0.1)
    assert rule.threshold is None
    assert rule.answered == 0
    assert "no case is answered" in rule.told
    assert not rule.answers(np.array([[0.0, 1.0]]), Task.binary).any()


def test_a_subject_with_many_cases_weighs_as_one() -> None:
    # Subject 0: four cases, all wrong and sure. Subjects 1 to 9: right, less sure.
    second_N = np.array([0.99] * 4 + [0.8] * 9)
    labels_N = np.array([0] * 4 + [1] * 9)
    subject_N = np.array([0] * 4 + list(range(1, 10)))
    rule = confidence_threshold(second_N, labels_N, Task.binary, 0.1, subject_N)
    assert (rule.answered, rule.error, rule.subjects) == pytest.approx((1.0, 0.1, 10))
    assert rule.error_high == pytest.approx(beta.ppf(0.95, 2, 9))
    assert confidence_threshold(second_N, labels_N, Task.binary, 0.1).threshold is None


def test_several_labels_share_a_threshold_and_are_answered_one_by_one() -> None:
    p_NL = np.array([[0.9, 0.6], [0.2, 0.55]])
    rule = confidence_threshold(p_NL, np.array([[1, 0], [0, 1]]), Task.multilabel, 0.0)
    assert (rule.threshold, rule.answered) == pytest.approx((0.8, 0.5))
    assert rule.answers(p_NL, Task.multilabel).tolist() == [[True, False], [True, False]]


def test_on_new_cases_the_error_is_near_what_was_allowed_and_below_answering_all() -> None:
    generator, found = np.random.default_rng(0), []
    for _ in range(300):
        p_N = generator.random(1200)
        labels_N = (generator.random(1200) < p_N).astype(np.int64)
        rule = confidence_threshold(p_N[:200], labels_N[:200], Task.binary, 0.1)
        new = np.stack([1 - p_N, p_N], axis=1)[200:]
        answered_N = rule.answers(new, Task.binary)
        wrong_N = (p_N[200:] > 0.5) != labels_N[200:]
        found.append([wrong_N[answered_N].mean() if answered_N.any() else 0.1, wrong_N.mean(), answered_N.mean()])
    on_answered, on_all, answered = np.mean(found, axis=0)
    assert on_all == pytest.approx(0.25, abs=0.01)
    # Of uniform calibrated probabilities the surest share a has (1 - (1 - a / 2)) / 2 = a / 4 wrong: 40 % for 0.1.
    assert answered == pytest.approx(0.4, abs=0.05)
    assert 0.1 < on_answered < 0.115  # chosen on 200 cases, so a little worse than it looked: it says so
    assert "more can be wrong on new ones" in rule.told


def test_the_rule_is_read_back_from_json_and_a_wrong_share_is_refused() -> None:
    p_N = np.array([0.9, 0.8, 0.3])
    for labels_N in (np.array([1, 1, 0]), np.array([0, 0, 1])):
        rule = confidence_threshold(p_N, labels_N, Task.binary, 0.0)
        assert ConfidenceRule.from_state(json.loads(json.dumps(rule.state(), allow_nan=False))) == rule
    with pytest.raises(DataError, match=r"share of wrong answers is 1\.0"):
        confidence_threshold(p_N, labels_N, Task.binary, 1.0)
    with pytest.raises(DataError, match=r"certainty of 95"):
        confidence_threshold(p_N, labels_N, Task.binary, 0.1, sure=95)


def test_to_be_sure_is_to_allow_no_more_than_what_may_be_wrong() -> None:
    # 50 sure ones, all right: the error may be 1 - (.05 / 10) ** (1 / 50) = 10.1 %.
    p_N, labels_N = np.repeat([0.95, 0.6], 50), np.repeat([1, 1, 0], [50, 20, 30])
    bound = 1 - (0.05 / SHARES) ** (1 / 50)
    rule = confidence_threshold(p_N, labels_N, Task.binary, 0.102, sure=0.95)
    assert (rule.threshold, rule.answered, rule.error, rule.error_high) == pytest.approx((0.95, 0.5, 0.0, bound))
    assert "at most 10.1% are, with 95% certainty for a model that saw none" in rule.told
    rule = confidence_threshold(p_N, labels_N, Task.binary, 0.1, sure=0.95)
    assert rule.threshold is None
    assert "10.0% or less with 95% certainty on the 100 subjects given" in rule.told


@pytest.mark.parametrize("cases, answers", [(50, 0.0), (400, 0.05), (1000, 0.8)])
def test_what_is_sure_fails_as_seldom_as_it_says_and_what_is_picked_by_luck_often(cases: int, answers: float) -> None:
    generator, failed = np.random.default_rng(cases), []
    for _ in range(400):
        p_N = generator.random(cases)
        labels_N = (generator.random(cases) < p_N).astype(np.int64)
        row = [confidence_threshold(p_N, labels_N, Task.binary, 0.1, sure=0.9).threshold is not None]
        for sure in (0.9, None):
            rule = confidence_threshold(p_N, labels_N, Task.binary, 0.1, sure=sure)
            # Of uniform calibrated probabilities those above t have (1 - t) / 2 wrong in the mean.
            row.append(rule.threshold is not None and (1 - rule.threshold) / 2 > 0.1)
        failed.append(row)
    answered, surely, luckily = np.mean(failed, axis=0)
    assert answered >= answers
    assert surely <= 0.1
    assert luckily > 0.3
