"""What the audit of DBA on medical images rests on: who sees which image, which labels are wrong, what is compared."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.studies import dba_medical
from benchmarks.studies.dba_fits import Arm, Length, Terms
from benchmarks.studies.dba_medical_fits import Given, fit
from benchmarks.studies.frozen_sets import FrozenSet
from data_shards.support.errors import TrainingError
from data_shards.vocabulary import Task
from finetune.cases import Cases
from finetune.steppers.plain import PlainStepper

POOL, CLASSES = 90, 3
LENGTH = Length(looks=2, steps=10)
TERMS = (Terms(0.05, 1e-3, 16), Terms(1e-6, 0.0, 16))


def cases(count: int) -> Cases:
    return Cases(
        name="noise",
        images=np.zeros((count, 1, 2, 2), dtype=np.uint8),
        labels=np.arange(count)[:, None] % CLASSES,
        task=Task.multiclass,
        classes=dict(enumerate("abc")),
        keys=np.arange(count).astype(str),
    )


def rows() -> np.ndarray:
    return np.arange(30, 75)


@pytest.fixture
def data() -> FrozenSet:
    """Vectors of which one number is high where the class is; there are none but those of the draw."""
    generator = np.random.default_rng(0)
    train, test = cases(POOL), cases(60)
    vectors = [generator.normal(size=(len(each), 8)) for each in (train, test)]
    for vector, each in zip(vectors, (train, test), strict=True):
        vector[np.arange(len(each)), each.known_labels[:, 0]] += 3
    asked = np.full_like(vectors[0], np.nan)
    asked[rows()] = vectors[0][rows()]
    return FrozenSet(asked.astype(np.float32), vectors[1].astype(np.float32), train, test)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_stated_share_of_each_class_has_another_label_and_nothing_else_has(data: FrozenSet, share: float) -> None:
    given = Given.of(data, rows(), share, seed=1)
    changed = given.labels_NL[:, 0] != data.train.known_labels[:, 0]
    assert not np.delete(changed, rows()).any() and given.flipped == changed.sum() == round(share * 15) * CLASSES
    per_class = [changed[data.train.known_labels[:, 0] == label].sum() for label in range(CLASSES)]
    assert set(per_class) == {round(share * 15)}
    again, other = (Given.of(data, rows(), share, seed).labels_NL for seed in (1, 2))
    assert (again == given.labels_NL).all() and (share == 0 or (other != given.labels_NL).any())


@pytest.mark.parametrize("stepper", ["plain", "agreement", "variance_adapted", "dba"])
def test_an_arm_chooses_what_learns_and_sees_what_it_was_given(data: FrozenSet, stepper: str) -> None:
    said = fit(Arm(stepper, stepper, terms=TERMS), data, Given.of(data, rows(), 0.0, 0), LENGTH, 0)
    assert said["distinct"] == said["images"] == 45 and said["terms"] == vars(TERMS[0])
    assert said["auc"] > 0.85 and said["accuracy"] > 0.7 and said["steps"] in (10, 20)


def test_terms_by_which_training_diverges_are_left_out(data: FrozenSet) -> None:
    given, far = Given.of(data, rows(), 0.0, 0), Terms(1e30, 0.0, 16)
    said = fit(Arm("plain", terms=(far, TERMS[0])), data, given, LENGTH, 0)
    assert said["terms"] == vars(TERMS[0])
    with pytest.raises(TrainingError, match="plain diverges by all of its terms"):
        fit(Arm("plain", terms=(far,)), data, given, LENGTH, 0)


def test_the_linear_optimum_is_fitted_to_the_same_labels(data: FrozenSet) -> None:
    said = fit(None, data, Given.of(data, rows(), 0.0, 0), LENGTH, 0)
    assert said["auc"] > 0.9 and said["distinct"] == 45
    wrong = fit(None, data, Given.of(data, rows(), 1.0, 0), LENGTH, 0)
    assert wrong["auc"] < 0.5


class Thief(PlainStepper):
    """Takes one image too many."""

    name = "thief"

    def begin(self) -> None:
        self.rows = np.append(self.rows, 0)
        super().begin()


def test_an_image_that_was_not_given_is_found_out(data: FrozenSet) -> None:
    data.train_ND[0] = 0
    with pytest.raises(AssertionError, match="thief has seen images that are not of the draw"):
        fit(Arm("thief", Thief, terms=TERMS[:1]), data, Given.of(data, rows(), 0.0, 0), LENGTH, 0)


def test_gains_are_paired_by_draw_and_what_was_not_run_is_left_out() -> None:
    def fits(arm: str, gain: float) -> dict[int, dict]:
        return {
            seed: {"arm": arm, "seed": seed, "auc": 0.5 + seed / 10 + gain * (1 + seed % 2), "images": 20}
            for seed in range(5)
        }

    setting = dba_medical.SETTINGS[0]
    found = {(setting, name, arm): fits(arm, gain) for name in ("a", "b")
             for arm, gain in ((dba_medical.BASELINE, 0.0), ("agreement", 0.01))}  # fmt: skip
    base, row = dba_medical.scores(found, ["a", "b"], "auc").rows
    assert base[4] == "0.700" and base[6] == "-"
    # Gains 1, 2, 1, 2, 1 hundredths: mean 1.4, deviation 0.5477, 0.5477 / sqrt(5) * 2.7764 = 0.680.
    assert row[4] == "0.714, +0.014 [+0.007, +0.021]" and row[6] == "+0.014 [+0.007, +0.021]" and row[7] == "5"
    del found[setting, "b", "agreement"]
    assert dba_medical.scores(found, ["a", "b"], "auc").rows[1][5:7] == ("-", "-")


def test_fits_of_different_settings_and_arms_have_files_of_their_own() -> None:
    places = {
        dba_medical.place(dba_medical.Path(), setting, "set", arm, seed)
        for setting in dba_medical.SETTINGS
        for arm in dba_medical.ARMS
        for seed in dba_medical.SEEDS
    }
    assert len(places) == len(dba_medical.SETTINGS) * len(dba_medical.ARMS) * len(dba_medical.SEEDS)
