from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import beta, norm, t
from sklearn.metrics import roc_auc_score

from data_shards.vocabulary import Task
from finetune.scores.bootstrap import Interval, interval, paired_difference
from finetune.scores.metrics import Score, accuracy, auc, balanced_accuracy
from finetune.scores.numbers import absolute_error, absolute_error_of_classes, quadratic_kappa, r_squared, spearman

ANY = (-math.inf, math.inf)
SCORES = {"auc": auc, "accuracy": accuracy, "balanced accuracy": balanced_accuracy}


def _scores(shift: float, seed: int, count: int = 120) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = (np.arange(count) % 4 == 0).astype(np.int64)
    return labels, 1 / (1 + np.exp(-generator.normal(size=count) - shift * labels))


class Study:
    """Images of 40 subjects, 10 of each, whose scores share half of their variance within a subject.

    Scores are normal with unit variance around -1/2 and 1/2 times the effect, cut at 0, so the true AUC is
    ``norm.cdf(effect / sqrt(2))`` and the true accuracy, of each class too, ``norm.cdf(effect / 2)``. A second model's
    scores correlate with them.
    """

    SUBJECTS, IMAGES, EFFECT, OTHER_EFFECT = 40, 10, 1.2, 0.7

    def __init__(self, classes: str, positive: float, seed: int) -> None:
        generator = np.random.default_rng(seed)
        shape = (self.SUBJECTS, self.IMAGES)
        of_subject = np.arange(self.SUBJECTS) < positive * self.SUBJECTS
        labels = np.broadcast_to(of_subject[:, None], shape)
        if classes == "mixed":
            labels = generator.random(shape) < positive
        self.labels = labels.astype(np.int64).ravel()
        self.subjects = np.repeat(np.arange(self.SUBJECTS), self.IMAGES)
        noise = [_correlated(generator, shape) for _ in range(2)]
        side = labels - 0.5
        self.scores = norm.cdf(noise[0] + self.EFFECT * side).ravel()
        self.baseline = norm.cdf(0.6 * noise[0] + 0.8 * noise[1] + self.OTHER_EFFECT * side).ravel()

    @classmethod
    def truth(cls, score: str, effect: float) -> float:
        return float(norm.cdf(effect / (math.sqrt(2) if score == "auc" else 2)))


def _correlated(generator: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return (generator.normal(size=(shape[0], 1)) + generator.normal(size=shape)) / math.sqrt(2)


@pytest.mark.parametrize(("classes", "positive", "seed"), [("whole", 0.5, 0), ("whole", 0.25, 1), ("mixed", 0.3, 2)])
def test_intervals_of_repeated_subjects_cover_as_often_as_they_say(classes: str, positive: float, seed: int) -> None:
    """At nominal 95 %, between 90 and 98 % of 200 studies; the standard error of that share is 1.5 %."""
    covered: dict[str, list[bool]] = {}
    by_image: list[bool] = []
    for study in (Study(classes, positive, 1000 * seed + number) for number in range(200)):
        given = (study.labels, study.scores, Task.binary)
        more = {"seed": seed, "replicates": 100}
        for name, score in SCORES.items():
            truth, other = study.truth(name, study.EFFECT), study.truth(name, study.OTHER_EFFECT)
            alone = interval(score, *given, subjects=study.subjects, **more)
            covered.setdefault(name, []).append(alone.low <= truth <= alone.high)
            paired = paired_difference(
                score, study.labels, study.scores, study.baseline, Task.binary, subjects=study.subjects, **more
            )
            covered.setdefault(f"difference of {name}", []).append(paired.low <= truth - other <= paired.high)
        naive = interval(auc, *given, **more)
        by_image.append(naive.low <= study.truth("auc", study.EFFECT) <= naive.high)
    shares = {name: float(np.mean(hits)) for name, hits in covered.items()}
    assert all(0.90 <= share <= 0.98 for share in shares.values()), shares
    if classes == "whole":
        assert np.mean(by_image) < 0.75  # what resampling images would have given


@pytest.mark.parametrize("positives", [6, 20])
def test_intervals_of_few_independent_images_cover_too(positives: int) -> None:
    effect, hits = 1.2, []
    labels = (np.arange(40) < positives).astype(np.int64)
    for seed in range(400):
        scores = norm.cdf(np.random.default_rng(seed).normal(size=40) + effect * (labels - 0.5))
        found = interval(auc, labels, scores, Task.binary, seed=seed, replicates=200)
        hits.append(found.low <= norm.cdf(effect / math.sqrt(2)) <= found.high)
    assert 0.90 <= np.mean(hits) <= 0.985


def test_subjects_that_are_all_different_are_as_none_in_any_order_of_their_names() -> None:
    labels, scores = _scores(1.0, 0)
    alone = interval(auc, labels, scores, Task.binary, seed=3)
    names = np.array([f"{number:04d}" for number in np.random.default_rng(0).permutation(len(labels))])
    assert interval(auc, labels, scores, Task.binary, seed=3, subjects=names) == alone


def test_an_image_that_is_there_ten_times_says_no_more_than_once() -> None:
    labels, scores = _scores(1.0, 0)
    once = interval(auc, labels, scores, Task.binary, seed=3)
    subjects = np.repeat(np.arange(len(labels)), 10)
    again = interval(auc, np.repeat(labels, 10), np.repeat(scores, 10), Task.binary, seed=3, subjects=subjects)
    assert (again.low, again.high) == pytest.approx((once.low, once.high))


def test_the_interval_holds_the_estimate_and_is_the_same_for_the_same_seed() -> None:
    labels, scores = _scores(1.0, 0)
    first = interval(auc, labels, scores, Task.binary, seed=3)
    assert first == interval(auc, labels, scores, Task.binary, seed=3)
    assert first != interval(auc, labels, scores, Task.binary, seed=4)
    assert first.low < first.estimate < first.high


def test_a_class_of_two_images_is_in_every_replicate() -> None:
    labels = np.array([1, 1] + [0] * 40)
    scores = np.random.default_rng(0).random(42)
    assert interval(auc, labels, scores, Task.binary, seed=0, replicates=300).replicates == 300


def test_the_interval_of_accuracy_is_that_of_the_binomial_in_the_logit() -> None:
    # One stratum: the labels are all alike, so the standard error of the mean is known, n - 1 in its denominator.
    generator = np.random.default_rng(1)
    labels, scores = np.ones(400, dtype=np.int64), np.where(generator.random(400) < 0.8, 0.9, 0.1)
    share = float(accuracy(labels, scores, Task.binary))
    found = interval(accuracy, labels, scores, Task.binary, seed=0, replicates=4000)
    half = t.ppf(0.975, 399) / math.sqrt(share * (1 - share) * 399)
    assert (found.low, found.high) == pytest.approx(expit(logit(share) + np.array([-half, half])), abs=2e-3)


def test_all_right_has_the_exact_interval_of_as_many_trials_as_there_are_subjects() -> None:
    labels = np.repeat([0, 0, 0, 1, 1], 4)
    subjects = np.repeat(np.arange(5), 4)
    found = interval(accuracy, labels, labels.astype(float), Task.binary, seed=0, subjects=subjects)
    assert (found.estimate, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(beta.ppf(0.025, 5, 1))  # Clopper and Pearson, 5 of 5
    scarce = interval(auc, labels, labels.astype(float), Task.binary, seed=0, subjects=subjects)
    assert scarce.low == pytest.approx(beta.ppf(0.025, 2, 1))
    wrong = interval(accuracy, labels, 1.0 - labels, Task.binary, seed=0, subjects=subjects)
    assert (wrong.low, wrong.high) == (0.0, pytest.approx(beta.ppf(0.975, 1, 5)))


def _undefined(found: Interval) -> bool:
    return math.isnan(found.low) and math.isnan(found.high)


def test_one_subject_in_each_class_has_no_interval_nor_has_a_score_that_is_not_defined() -> None:
    labels, scores = np.repeat([0, 1], 5), np.random.default_rng(0).random(10)
    assert _undefined(interval(accuracy, labels, scores, Task.binary, seed=0, subjects=labels))
    alike = interval(auc, np.zeros(10, dtype=np.int64), scores, Task.binary, seed=0)
    assert math.isnan(alike.estimate) and _undefined(alike)


def test_pairing_removes_what_two_models_share() -> None:
    labels, scores = _scores(1.0, 0)
    slightly_better = np.clip(scores + 0.02 * labels, 0, 1)
    paired = paired_difference(auc, labels, slightly_better, scores, Task.binary, seed=0)
    alone = interval(auc, labels, scores, Task.binary, seed=0)
    assert 0 < paired.low < paired.high < 0.05
    assert paired.high - paired.low < 0.2 * (alone.high - alone.low)


@pytest.mark.parametrize("score", [auc, accuracy, balanced_accuracy])
def test_models_that_differ_alike_on_every_subject_have_no_interval_of_their_difference(score: Score) -> None:
    labels, scores = _scores(0.5, 2)
    same = paired_difference(score, labels, scores, scores, Task.binary, seed=0)
    assert same.estimate == 0.0 and _undefined(same)
    few, right = np.array([0, 0, 0, 1, 1, 1]), np.array([0.0, 0, 0, 1, 1, 1])
    opposite = paired_difference(score, few, right, 1 - right, Task.binary, seed=0)
    assert opposite.estimate == 1.0 and _undefined(opposite)


@pytest.mark.parametrize("score", [accuracy, balanced_accuracy, auc])
def test_the_only_subject_of_a_class_leaves_no_interval_however_many_images_it_has(score: Score) -> None:
    # Thirty subjects of one image each against one of thirty, whose share of right images nothing else tells of.
    labels, subjects = np.repeat([0, 1], 30), np.r_[np.arange(30), np.full(30, 30)]
    scores = np.where(np.arange(60) < 50, labels, 1 - labels).astype(float)
    given = (score, labels, scores)
    found = interval(*given, Task.binary, seed=0, subjects=subjects)
    assert 0 < found.estimate < 1 and _undefined(found)
    assert _undefined(paired_difference(*given, 1 - scores, Task.binary, seed=0, subjects=subjects))
    perfect = interval(score, labels, labels.astype(float), Task.binary, seed=0, subjects=subjects)
    assert (perfect.low, perfect.high) == (pytest.approx(beta.ppf(0.025, 1, 1)), 1.0)


def test_subjects_that_are_all_half_right_do_not_show_that_all_others_are() -> None:
    labels, subjects = np.repeat([0, 0, 1, 1], 2), np.repeat(np.arange(4), 2)
    scores = np.tile([0.2, 0.8], 4)
    found = interval(accuracy, labels, scores, Task.binary, seed=0, subjects=subjects)
    assert found.estimate == 0.5 and _undefined(found)


def test_the_only_subject_without_the_rare_class_is_drawn_with_those_that_share_its_class() -> None:
    # Of six subjects five have images of both classes; all are right on 2 of 4 images but the sixth, on all.
    subjects, labels = np.repeat(np.arange(6), 4), np.array([0, 0, 0, 1] * 5 + [0] * 4)
    right = np.array([1, 0, 0, 1] * 5 + [1] * 4)
    scores = np.where(right, labels, 1 - labels).astype(float)
    found = interval(accuracy, labels, scores, Task.binary, seed=0, subjects=subjects, replicates=4000)
    shares = right.reshape(6, 4).mean(axis=1)
    error = shares.std(ddof=1) / math.sqrt(6)
    half = t.ppf(0.975, 5) * error / (shares.mean() * (1 - shares.mean()))
    assert (found.low, found.high) == pytest.approx(expit(logit(shares.mean()) + np.array([-half, half])), abs=1e-2)


class NumberStudy:
    """Ten cases of each of 40 subjects: a normal number of unit variance, half of it of the subject, and what is said.

    Said is half of the number and an error of variance 3/4, half of it of the subject, too. The truths then are: errors
    have variance 1/4 + 3/4, so a mean absolute error of ``sqrt(2 / pi)`` and no variance explained; the correlation is
    1/2, the rank correlation ``6 / pi asin(1/4)`` (of normal pairs: Kruskal, JASA 53, 1958).
    """

    TRUTH = {"mae": math.sqrt(2 / math.pi), "r2": 0.0, "spearman": 6 / math.pi * math.asin(0.25)}
    SCORES = {"mae": absolute_error, "r2": r_squared, "spearman": spearman}

    def __init__(self, seed: int) -> None:
        generator = np.random.default_rng(seed)
        shape = (40, 10)
        self.labels = _correlated(generator, shape).ravel()
        self.scores = 0.5 * self.labels + math.sqrt(0.75) * _correlated(generator, shape).ravel()
        self.baseline = 0.5 * self.labels + math.sqrt(0.75) * _correlated(generator, shape).ravel()
        self.subjects = np.repeat(np.arange(40), 10)


def test_intervals_of_scores_of_numbers_cover_as_often_as_they_say() -> None:
    """At nominal 95 %, between 90 and 98 % of 300 studies; the standard error of that share is 1.3 %."""
    covered: dict[str, list[bool]] = {}
    by_image: list[bool] = []
    for seed in range(300):
        study = NumberStudy(seed)
        given = (study.labels, study.scores, Task.regression)
        for name, score in study.SCORES.items():
            found = interval(score, *given, seed=seed, subjects=study.subjects, replicates=100, limits=ANY)
            covered.setdefault(name, []).append(found.low <= study.TRUTH[name] <= found.high)
            paired = paired_difference(
                score, study.labels, study.scores, study.baseline, Task.regression,
                seed=seed, subjects=study.subjects, replicates=100,
            )  # fmt: skip
            covered.setdefault(f"difference of {name}", []).append(paired.low <= 0 <= paired.high)
        naive = interval(spearman, *given, seed=seed, replicates=100, limits=ANY)
        by_image.append(naive.low <= study.TRUTH["spearman"] <= naive.high)
    shares = {name: float(np.mean(hits)) for name, hits in covered.items()}
    assert all(0.90 <= share <= 0.98 for share in shares.values()), shares
    assert np.mean(by_image) < 0.8  # what resampling images would have given


def test_the_interval_of_a_mean_error_is_that_of_student_whatever_its_unit() -> None:
    generator = np.random.default_rng(0)
    labels, scores = generator.normal(size=(2, 200))
    error = np.abs(labels - scores)
    half = t.ppf(0.975, 199) * error.std(ddof=1) / math.sqrt(200)
    for unit in (1e-12, 1.0, 1e12):
        found = interval(
            absolute_error, unit * labels, unit * scores, Task.regression, seed=0, replicates=4000, limits=ANY
        )
        assert found.estimate == pytest.approx(unit * error.mean())
        assert (found.low, found.high) == pytest.approx(unit * (error.mean() + np.array([-half, half])), rel=1e-2)


def test_a_score_that_is_not_a_share_has_no_exact_interval_and_may_be_negative() -> None:
    labels = np.arange(10.0)
    perfect = interval(r_squared, labels, labels, Task.regression, seed=0, limits=ANY)
    assert perfect.estimate == 1.0 and _undefined(perfect)
    off = interval(absolute_error, labels, labels + 0.1, Task.regression, seed=0, limits=ANY)
    assert off.estimate == pytest.approx(0.1) and _undefined(off)
    worse = interval(r_squared, labels, labels[::-1], Task.regression, seed=0, limits=ANY)
    assert worse.estimate < 0 and worse.low < worse.estimate < worse.high
    single = interval(
        absolute_error, labels, labels[::-1], Task.regression, seed=0, subjects=np.zeros(10, np.int64), limits=ANY
    )
    assert _undefined(single)


def test_no_interval_reaches_beyond_what_the_score_can_be() -> None:
    """Cut, it is the same on the side that is not cut."""
    generator = np.random.default_rng(0)
    labels = np.r_[0.0, 0.0, 0.0, 8.0, 9.0]
    close = labels + 0.6 * generator.normal(size=5)
    ranks = np.array([0, 1, 0, 1, 2, 2, 1])
    for score, (low, high), truth, said, task in (
        (r_squared, (-math.inf, 1.0), labels, close + np.r_[0, 0, 0, 0, 2.5], Task.regression),
        (spearman, (-1.0, 1.0), np.arange(5.0), np.r_[0.0, 2, 1, 3, 4], Task.regression),
        (absolute_error, (0.0, math.inf), labels, labels + np.r_[0, 0, 0, 0, 1.0], Task.regression),
        (quadratic_kappa, (-1.0, 1.0), ranks, np.eye(3)[np.r_[0, 1, 0, 1, 2, 1, 1]], Task.ordinal),
    ):
        whole = interval(score, truth, said, task, seed=0, limits=ANY)
        found = interval(score, truth, said, task, seed=0, limits=(low, high))
        assert whole.low < low or whole.high > high, (score.__name__, whole)
        assert (found.low, found.high) == (max(whole.low, low), min(whole.high, high)), score.__name__


def test_agreement_of_ordered_classes_has_a_symmetric_interval() -> None:
    generator = np.random.default_rng(0)
    labels = np.arange(60) % 3
    scores = np.eye(3)[np.clip(labels + generator.integers(-1, 2, size=60), 0, 2)]
    for score in (quadratic_kappa, absolute_error_of_classes):
        found = interval(score, labels, scores, Task.ordinal, seed=0, limits=ANY)
        assert found.high - found.estimate == pytest.approx(found.estimate - found.low) and found.low < found.high


def test_predictions_made_several_times_are_scored_by_the_mean_of_their_scores() -> None:
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 2, 60)
    said, other = (np.stack([rng.random(60) + weight * labels for _ in range(3)])[..., None] for weight in (0.6, 0.2))
    found = interval(auc, labels, said, Task.binary, seed=0)
    assert found.estimate == pytest.approx(np.mean([roc_auc_score(labels, each[:, 0]) for each in said]))
    single = [interval(auc, labels, each, Task.binary, seed=0) for each in said]
    assert found.high - found.low < max(each.high - each.low for each in single)
    paired = paired_difference(auc, labels, said, other, Task.binary, seed=0)
    means = [np.mean([roc_auc_score(labels, each[:, 0]) for each in stack]) for stack in (said, other)]
    assert paired.estimate == pytest.approx(means[0] - means[1]) and paired.low < paired.estimate < paired.high
