from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy.special import expit, softmax

from data_shards.support.errors import ConfigError, DataError
from finetune.classifier.abstention import abstains
from finetune.classifier.conformal import Conformal
from finetune.targets import Target, create_target

BINARY = create_target("binary", ["ill", "well"])
FOUR = create_target("multiclass", list("abcd"))
FINDINGS = create_target("multilabel", ["mass", "effusion", "scar"])
NUMBERS = create_target("regression", ["age", "volume"])
RARE = np.log([0.6, 0.25, 0.1, 0.05])


def classes(generator: np.random.Generator, cases: int, subject_of: np.ndarray | None = None):  # type: ignore[no-untyped-def]
    """Labels of unequal classes, and probabilities that are too sure; what makes a subject hard is shared by it."""
    label_N = generator.choice(4, size=cases, p=np.exp(RARE))
    if subject_of is not None:
        label_N = label_N[subject_of]
    noise = generator.normal(size=(len(label_N), 4))
    if subject_of is not None:
        noise = 0.4 * noise + 1.2 * generator.normal(size=(cases, 4))[subject_of]
    logits_NC = 1.5 * (label_N[:, None] == np.arange(4)) + noise + RARE
    return softmax(3 * logits_NC, axis=1), label_N[:, None]


def findings(generator: np.random.Generator, cases: int) -> tuple[np.ndarray, np.ndarray]:
    labels_NL = (generator.random((cases, 3)) < [0.5, 0.2, 0.1]).astype(np.int64)
    return expit(3 * labels_NL - 2 + generator.normal(size=(cases, 3))), labels_NL


def numbers(generator: np.random.Generator, cases: int) -> tuple[np.ndarray, np.ndarray]:
    labels_NL = generator.normal(size=(cases, 2)) * [10, 0.1]
    return labels_NL + generator.standard_t(3, size=(cases, 2)) * [5, 0.05], labels_NL


def within(found: np.ndarray, stated: float, most: float = 1.0) -> None:
    """The mean over calibrations is at least ``stated``, and at most ``most``, within three standard errors of it."""
    error = 3 * found.std(ddof=1) / math.sqrt(len(found))
    assert error < 0.012
    assert stated - error <= found.mean() <= most + error


@pytest.mark.parametrize("method", ["lac", "aps"])
@pytest.mark.parametrize("cases", [30, 100, 500])
def test_coverage_is_what_is_stated_and_not_much_more(cases: int, method: str) -> None:
    generator, found = np.random.default_rng(cases), []
    for _ in range(1000):
        fitted = Conformal.fit(FOUR, *classes(generator, cases), method=method)
        found.append(fitted.covers(*classes(generator, 300)).mean())
    within(np.array(found), 0.9, 1.0 if method == "aps" else 0.9 + 1 / (cases + 1))


@pytest.mark.parametrize("cases", [30, 100, 500])
def test_each_class_is_covered_when_calibrated_by_class_and_the_rare_one_is_not_otherwise(cases: int) -> None:
    generator, by_class, together = np.random.default_rng(cases), [], []
    for _ in range(1000):
        given = classes(generator, cases)
        p_NC, labels_NL = classes(generator, 600)
        for fitted, shares in (
            (Conformal.fit(FOUR, *given, by_class=True), by_class),
            (Conformal.fit(FOUR, *given), together),
        ):
            covered_N = fitted.covers(p_NC, labels_NL)[:, 0]
            shares.append([covered_N[labels_NL[:, 0] == k].mean() for k in range(4)])
    for share_R in np.array(by_class).T:
        within(share_R, 0.9)
    assert np.mean(together, axis=0)[3] < 0.7


@pytest.mark.parametrize("subjects", [30, 100])
@pytest.mark.parametrize("by_class", [False, True])
def test_coverage_of_new_subjects_holds_when_cases_come_in_clusters(subjects: int, by_class: bool) -> None:
    generator, weighted, naive = np.random.default_rng(subjects), [], []
    for _ in range(1000):
        parts = []
        for count in (subjects, 200):
            # Hard subjects, those of class 0 here, have few images, easy ones many: cases are not subjects.
            label_S = generator.choice(2, size=count)
            subject_N = np.repeat(np.arange(count), np.where(label_S == 0, 1, 12))
            noise_N = 0.3 * generator.normal(size=len(subject_N)) + generator.normal(size=count)[subject_N]
            logit_N = np.where(label_S == 0, -0.5, 3.0)[subject_N] + noise_N
            p_N = expit(logit_N)
            parts.append((np.stack([1 - p_N, p_N], axis=1), label_S[subject_N][:, None], subject_N))
        (p_NC, labels_NL, subject_N), (new_NC, new_NL, new_N) = parts
        for given, shares in ((subject_N, weighted), (None, naive)):
            covered_N = Conformal.fit(BINARY, p_NC, labels_NL, 0.1, given, by_class=by_class).covers(new_NC, new_NL)
            mean_S = np.bincount(new_N, weights=covered_N[:, 0]) / np.bincount(new_N)
            shares.append(
                [
                    mean_S.mean(),
                    *(mean_S[new_NL[np.unique(new_N, return_index=True)[1], 0] == k].mean() for k in (0, 1)),
                ]
            )
    weighted_RK, naive_RK = np.array(weighted), np.array(naive)
    within(weighted_RK[:, 0], 0.9, 0.9 + 1.01 / (subjects / 2 if by_class else subjects))
    if by_class:
        within(weighted_RK[:, 1], 0.9)
        within(weighted_RK[:, 2], 0.9)
    else:
        assert naive_RK[:, 0].mean() < 0.85


@pytest.mark.parametrize("by_class", [False, True])
def test_labels_are_covered_each_by_itself(by_class: bool) -> None:
    generator, found, present = np.random.default_rng(0), [], []
    for _ in range(1000):
        fitted = Conformal.fit(FINDINGS, *findings(generator, 100), by_class=by_class)
        p_NL, labels_NL = findings(generator, 300)
        covered_NL = fitted.covers(p_NL, labels_NL)
        found.append(covered_NL.mean(axis=0))
        present.append((covered_NL & (labels_NL == 1)).sum(axis=0) / (labels_NL == 1).sum(axis=0))
    for share_R in np.array(found).T:
        within(share_R, 0.9, 1.0 if by_class else 0.92)
    if by_class:
        for share_R in np.array(present).T:
            within(share_R, 0.9)


@pytest.mark.parametrize("cases", [30, 100, 500])
def test_intervals_cover_each_number(cases: int) -> None:
    generator, found = np.random.default_rng(cases), []
    for _ in range(1000):
        fitted = Conformal.fit(NUMBERS, *numbers(generator, cases))
        found.append(fitted.covers(*numbers(generator, 300)).mean(axis=0))
    for share_R in np.array(found).T:
        within(share_R, 0.9, 0.9 + 1 / (cases + 1))


def test_out_of_fold_predictions_cover_about_as_much_with_the_model_fitted_to_all() -> None:
    # Not guaranteed; a nearest-mean classifier, whose models of folds differ from that of all cases.
    generator, found = np.random.default_rng(0), []

    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        label_N = generator.integers(2, size=count)
        return generator.normal(size=(count, 5)) + label_N[:, None], label_N

    def predicted(x: np.ndarray, y: np.ndarray, at: np.ndarray) -> np.ndarray:
        distance = [((at - x[y == k].mean(axis=0)) ** 2).sum(axis=1) for k in (0, 1)]
        return softmax(-np.stack(distance, axis=1) / 2, axis=1)

    for _ in range(1000):
        x, y = draw(60)
        fold_N = np.arange(60) % 5
        out_NC = np.empty((60, 2))
        for fold in range(5):
            kept = fold_N != fold
            out_NC[~kept] = predicted(x[kept], y[kept], x[~kept])
        new, label_N = draw(300)
        fitted = Conformal.fit(BINARY, out_NC, y[:, None])
        found.append(fitted.covers(predicted(x, y, new), label_N[:, None]).mean())
    assert 0.88 <= np.mean(found) <= 0.94


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.25])
@pytest.mark.parametrize("cases", [9, 10, 19, 20, 21, 57])
def test_the_threshold_is_the_score_of_rank_n_plus_one_times_one_minus_alpha(cases: int, alpha: float) -> None:
    p_N = np.random.default_rng(cases).permutation(np.arange(1, cases + 1)) / 100
    fitted = Conformal.fit(BINARY, np.stack([1 - p_N, p_N], axis=1), np.ones((cases, 1), np.int64), alpha)
    rank = -(-(cases + 1) * round(100 * (1 - alpha)) // 100)
    if rank > cases:
        assert fitted.thresholds_LV == ((None, None),)
    else:
        assert fitted.thresholds_LV[0][1] == pytest.approx(sorted(1 - p_N)[rank - 1])


def test_aps_keeps_the_likeliest_classes_up_to_the_threshold() -> None:
    fitted = Conformal("multiclass", tuple("abcd"), 0.1, "aps", False, ((0.8,) * 4,), ((50,) * 4,), False)
    sets = fitted.sets(np.array([[0.1, 0.5, 0.3, 0.1], [0.25, 0.2, 0.3, 0.25], [0.9, 0.1, 0.0, 0.0]]))
    assert sets.tolist() == [[False, True, True, False], [True, False, True, True], [False] * 4]


def test_an_empty_set_and_one_of_two_are_no_answer() -> None:
    p_N = np.tile([0.99, 0.98, 0.97, 0.96, 0.95], 20)
    fitted = Conformal.fit(BINARY, np.stack([1 - p_N, p_N], axis=1), np.ones((100, 1), np.int64))
    sets = fitted.sets(np.array([[0.01, 0.99], [0.4, 0.6], [0.96, 0.04]]))
    assert sets.tolist() == [[False, True], [False, False], [True, False]]
    assert abstains(sets, np.array([[1], [1], [0]])).tolist() == [False, True, False]


def test_too_few_subjects_keep_everything_and_it_is_said() -> None:
    generator = np.random.default_rng(0)
    p_NC, labels_NL = classes(generator, 8)
    fitted = Conformal.fit(FOUR, p_NC, labels_NL)
    assert fitted.sets(p_NC).all()
    assert "At least 9 subjects are needed; with fewer, the set always holds a, b, c, d." in fitted.told
    few = np.array([[0]] * 12 + [[1]] * 12 + [[2]] * 3)
    p_NC = softmax(generator.normal(size=(27, 4)), axis=1)
    fitted = Conformal.fit(FOUR, p_NC, few, by_class=True)
    assert fitted.sets(p_NC)[:, 2:].all()
    assert not fitted.sets(p_NC)[:, :2].all()
    assert fitted.subjects_LV == ((12, 12, 3, 0),)
    assert "0 to 12 subjects of a class" in fitted.told
    assert fitted.told.endswith("At least 9 subjects of a class are needed; with fewer, the set always holds c, d.")
    assert Conformal.fit(FOUR, p_NC, few, 0.1, np.arange(27) // 4).sets(p_NC).all()  # seven subjects
    numbers_NL, truth_NL = numbers(generator, 5)
    unknown = Conformal.fit(NUMBERS, numbers_NL, truth_NL)
    assert np.isinf(unknown.intervals(numbers_NL)).all()
    assert "the interval always holds every number" in unknown.told


def test_what_is_promised_depends_on_what_the_model_saw() -> None:
    p_NC, labels_NL = classes(np.random.default_rng(0), 50)
    assert (
        "expected, not guaranteed, to hold the right answer with probability 0.9"
        in Conformal.fit(FOUR, p_NC, labels_NL).told
    )
    assert (
        "holds the right answer with probability 0.8 or more"
        in Conformal.fit(FOUR, p_NC, labels_NL, 0.2, held_out=True).told
    )


@pytest.mark.parametrize("target, draw", [(FOUR, classes), (FINDINGS, findings), (NUMBERS, numbers)])
@pytest.mark.parametrize("cases", [5, 60])
def test_it_is_read_back_from_json(target: Target, draw, cases: int) -> None:  # type: ignore[no-untyped-def]
    given = draw(np.random.default_rng(0), cases)
    fitted = Conformal.fit(target, *given, by_class=target.classifies)
    back = Conformal.from_state(json.loads(json.dumps(fitted.state(), allow_nan=False)))
    assert back == fitted
    assert back.told == fitted.told
    np.testing.assert_array_equal(back.covers(*given), fitted.covers(*given))


def test_what_does_not_fit_is_refused() -> None:
    p_NC, labels_NL = classes(np.random.default_rng(0), 50)
    with pytest.raises(ConfigError, match="alpha is 1.0"):
        Conformal.fit(FOUR, p_NC, labels_NL, 1.0)
    with pytest.raises(ConfigError, match="unknown conformal method 'raps'"):
        Conformal.fit(FOUR, p_NC, labels_NL, method="raps")
    with pytest.raises(ConfigError, match="aps is for one of several classes"):
        Conformal.fit(FINDINGS, *findings(np.random.default_rng(0), 20), method="aps")
    with pytest.raises(ConfigError, match="regression has none"):
        Conformal.fit(NUMBERS, *numbers(np.random.default_rng(0), 20), by_class=True)
    with pytest.raises(DataError, match="49 predictions for 50 cases"):
        Conformal.fit(FOUR, p_NC[1:], labels_NL)
    fitted = Conformal.fit(FOUR, p_NC, labels_NL)
    with pytest.raises(DataError, match=r"shape \(50, 3\) of a multiclass target with 4 columns"):
        fitted.sets(p_NC[:, 1:])
    with pytest.raises(DataError, match="sets, not intervals"):
        fitted.intervals(p_NC)
    with pytest.raises(DataError, match="intervals, not sets"):
        Conformal.fit(NUMBERS, *numbers(np.random.default_rng(0), 20)).sets(p_NC[:, :2])
    p_NC[0, 0] = np.nan
    with pytest.raises(DataError, match="NaN or infinity"):
        fitted.sets(p_NC)
