from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.svm import SVC

from data_shards.support.errors import ConfigError, DataError
from finetune.mil.mi_svm import MISVC

# Positive bags have one point right of x = 2 and background near x = 0, negative bags background alone.
HAND = [
    np.array([[3.0, 0.0], [0.1, 1.0], [0.0, -1.0]]),
    np.array([[0.2, 0.5], [3.2, 1.0]]),
    np.array([[2.9, -1.0], [-0.1, 0.2]]),
    np.array([[0.0, 0.0], [0.2, 1.1], [0.1, -0.9]]),
    np.array([[-0.2, 0.4], [0.3, -0.5]]),
]
LABELS = np.array(["with", "with", "with", "without", "without"])
WITNESSES = [[1, -1, -1], [-1, 1], [1, -1], [-1, -1, -1], [-1, -1]]


def labels_of_bags() -> np.ndarray:
    return np.where(LABELS == "with", 1, 0)


@pytest.mark.parametrize("form", ["mi", "MI"])
def test_the_witnesses_of_a_hand_made_example_are_found(form: str) -> None:
    model = MISVC(C=10.0, kernel="linear", form=form).fit(HAND, labels_of_bags())
    positive = [np.flatnonzero(signs == 1).tolist() for signs in model.signs_]
    assert positive == [np.flatnonzero(np.array(signs) == 1).tolist() for signs in WITNESSES]
    assert model.predict(HAND).tolist() == labels_of_bags().tolist()
    assert model.predict([np.array([[0.0, 3.0]]), np.array([[0.0, 0.0], [5.0, 0.0]])]).tolist() == [0, 1]
    # At the fixpoint it is the machine that scikit-learn fits to these labels.
    kept = np.concatenate([signs != 0 for signs in model.signs_])
    given, signs = np.concatenate(HAND)[kept], np.concatenate(model.signs_)[kept]
    oracle = SVC(C=10.0, kernel="linear", tol=1e-6).fit(given, signs)
    np.testing.assert_allclose(
        np.concatenate(model.instance_scores(HAND)), oracle.decision_function(np.concatenate(HAND)), atol=1e-4
    )
    hinge = np.maximum(0, 1 - signs * oracle.decision_function(given)).sum()
    assert model.objective_[-1] == pytest.approx((oracle.coef_**2).sum() / 2 + 10 * hinge, rel=1e-4)


@pytest.mark.parametrize("form", ["mi", "MI"])
@pytest.mark.parametrize("seed", range(8))
def test_the_objective_never_rises_and_a_positive_bag_keeps_an_instance(form: str, seed: int) -> None:
    generator = np.random.default_rng(seed)
    bags = [generator.normal(size=(int(generator.integers(1, 9)), 3)) for _ in range(24)]
    labels = np.arange(24) % 2
    for bag, label in zip(bags, labels, strict=True):
        bag[0] += 1.5 * label
    model = MISVC(C=1.0, form=form).fit(bags, labels)
    assert len(model.objective_) > 1 and (np.diff(model.objective_) < 0).all()
    for signs, label in zip(model.signs_, labels, strict=True):
        assert (signs == 1).any() == bool(label)


def test_it_is_an_estimator_as_scikit_learn_has_them() -> None:
    model = clone(MISVC(C=2.0, form="MI"))
    assert model.get_params()["C"] == 2.0
    assert set(model.fit(HAND, LABELS).predict(HAND)) <= {"with", "without"}
    assert model.score(HAND, LABELS) >= 0.4


def test_bags_that_cannot_be_used_are_refused_in_one_line() -> None:
    for bags, labels, told in (
        ([*HAND[:4], np.empty((0, 2))], LABELS, r"bag 4: .* one instance at least, found shape \(0, 2\)"),
        ([*HAND[:4], np.zeros((1, 3))], LABELS, r"bag 4: expected finite vectors H,2 .* found shape \(1, 3\)"),
        ([*HAND[:4], np.full((1, 2), np.nan)], LABELS, "bag 4: expected finite vectors"),
        (HAND, ["a"] * 5, "5 bags, 5 labels of 1 values; expected 2 values"),
        (HAND, LABELS[:4], "5 bags, 4 labels"),
    ):
        with pytest.raises(DataError, match=told):
            MISVC().fit(bags, labels)
    with pytest.raises(ConfigError, match="form 'x', expected mi or MI"):
        MISVC(form="x").fit(HAND, LABELS)
