from __future__ import annotations

import numpy as np
import pytest

from data_shards.vocabulary import Task
from finetune.splits import carved, selection_folds, shuffled, smallest_class, strata, stratified_folds


def test_the_order_is_pinned_so_that_published_draws_stay_the_same() -> None:
    assert shuffled(8, 0, "subset").tolist() == shuffled(8, 0, "subset").tolist()
    assert shuffled(8, 0, "subset").tolist() != shuffled(8, 1, "subset").tolist()
    assert sorted(shuffled(1000, 5, "folds").tolist()) == list(range(1000))


def test_folds_spread_every_class_evenly() -> None:
    classes = np.array([0] * 23 + [1] * 11 + [2] * 5)
    folds = stratified_folds(classes, 5, seed=1)
    for label in range(3):
        sizes = np.bincount(folds[classes == label], minlength=5)
        assert sizes.max() - sizes.min() <= 1
    assert np.ptp(np.bincount(folds, minlength=5)) <= 1


@pytest.mark.parametrize("seed", range(5))
def test_a_subject_is_never_cut_apart(seed: int) -> None:
    generator = np.random.default_rng(seed)
    subjects = generator.integers(0, 40, size=200)
    classes = (subjects % 3 == 0).astype(np.int64)
    folds = selection_folds(classes, seed, subjects)
    assert folds
    for train, held_out in folds:
        assert not set(subjects[train]) & set(subjects[held_out])
        assert set(classes[train]) == set(classes[held_out]) == {0, 1}


def test_many_labels_are_carved_and_few_are_cross_validated() -> None:
    carved = selection_folds(np.arange(100) % 2, 0)
    assert [(len(train), len(held_out)) for train, held_out in carved] == [(80, 20)]
    crossed = selection_folds(np.arange(20) % 2, 0)
    assert len(crossed) == 5
    assert sorted(np.concatenate([held_out for _, held_out in crossed]).tolist()) == list(range(20))
    assert len(selection_folds(np.array([0, 0, 0, 1, 1, 1]), 0)) == 3


@pytest.mark.parametrize("seed", range(5))
def test_subjects_with_images_of_both_classes_are_divided(seed: int) -> None:
    generator = np.random.default_rng(seed)
    subjects = np.repeat(np.arange(20), 5)
    classes = (generator.random(100) < 0.4).astype(np.int64)  # nearly every subject has both
    assert smallest_class(classes, subjects) >= 15
    (carve,) = selection_folds(classes, seed, subjects)
    few = subjects < 8
    for train, held_out in [carve, *selection_folds(classes[few], seed, subjects[few])]:
        assert not set(subjects[train]) & set(subjects[held_out])
        assert set(classes[train]) == set(classes[held_out]) == {0, 1}
        assert len(held_out) <= 0.5 * len(train)
    assert len(selection_folds(classes[few], seed, subjects[few])) == 5


def test_a_fold_that_would_train_without_a_class_is_left_out() -> None:
    # Class 2 is in two subjects that have all the other images of class 1, too.
    subjects = np.array([0, 0, 0, 1, 1, 1, 2, 3])
    classes = np.array([1, 2, 2, 1, 2, 2, 0, 0])
    for train, _ in selection_folds(classes, 0, subjects):
        assert set(classes[train]) == {0, 1, 2}


def test_one_part_is_carved_off_a_fifth_of_many_and_a_third_of_few() -> None:
    assert [len(held_out) for _, held_out in carved(np.arange(100) % 2, 0)] == [20]
    assert [len(held_out) for _, held_out in carved(np.arange(12) % 2, 0)] == [4]
    assert [len(held_out) for _, held_out in carved(np.arange(4) % 2, 0)] == [2]
    assert carved(np.array([0, 1, 1]), 0) == []


def test_fewer_images_than_folds_are_still_dealt() -> None:
    assert sorted(stratified_folds(np.array([0, 0, 1]), 4, 0).tolist()) in ([0, 0, 1], [0, 1, 1])
    assert stratified_folds(np.array([0, 1]), 4, 0).tolist() == [0, 0]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_fewer_subjects_than_folds_are_a_fold_each(count: int) -> None:
    subjects = np.repeat(np.arange(count), 4)
    folds = stratified_folds(np.tile([0, 1, 0, 1], count), 4, 0, subjects)
    assert sorted(folds[::4].tolist()) == list(range(count))
    assert (folds.reshape(count, 4) == folds[::4, None]).all()


def test_nothing_is_held_out_of_a_class_with_one_subject() -> None:
    assert selection_folds(np.array([0, 1, 1, 1]), 0) == []
    assert selection_folds(np.array([0, 0, 1, 1]), 0, np.array(["a", "a", "b", "c"])) == []


def test_the_stratum_of_a_multilabel_image_is_its_rarest_label() -> None:
    labels = np.array([[1, 1, 0], [1, 0, 0], [1, 0, 1], [0, 0, 1], [0, 0, 0]])
    assert strata(labels, Task.multilabel).tolist() == [2, 1, 3, 3, 0]
