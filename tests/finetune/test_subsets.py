from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_shards.support.errors import DataError
from data_shards.vocabulary import Task
from finetune.cases import Cases
from finetune.census import describe
from finetune.subsets import Budget, draw, load, save
from tests.finetune.samples import blobs


def test_the_same_seed_draws_the_same_and_another_seed_another() -> None:
    pool = blobs(200, 4)
    assert draw(pool, Budget(per_class=5), 1) == draw(pool, Budget(per_class=5), 1)
    assert draw(pool, Budget(per_class=5), 1).indices != draw(pool, Budget(per_class=5), 2).indices


def test_classes_are_balanced_and_images_distinct() -> None:
    pool = blobs(203, 4)
    given = draw(pool, Budget(per_class=7), 0).of(pool)
    assert np.bincount(given.labels[:, 0]).tolist() == [7, 7, 7, 7]
    assert len(set(given.keys)) == 28 == given.distinct_images()


def test_a_larger_budget_contains_the_smaller() -> None:
    pool = blobs(100)
    few, more = (draw(pool, Budget(per_class=count), 3).indices for count in (5, 25))
    assert set(few) < set(more)


def test_a_fraction_gives_every_class_at_least_one() -> None:
    pool = blobs(100)
    rare = pool.select(np.r_[np.flatnonzero(pool.labels[:, 0] == 0), [1, 3]])
    assert draw(rare, Budget(fraction=0.02), 0).per_class == {"place 0": 1, "place 1": 1}
    assert draw(pool, Budget(fraction=0.1), 0).per_class == {"place 0": 5, "place 1": 5}


def test_a_class_that_is_smaller_than_the_budget_is_taken_whole() -> None:
    pool = blobs(6)
    assert draw(pool, Budget(per_class=50), 0).indices == tuple(range(6))


def test_a_multilabel_draw_has_every_label_and_images_without_any() -> None:
    labels = np.random.default_rng(0).integers(0, 2, size=(120, 3)) * (np.arange(120) % 2)[:, None]
    pool = replace(blobs(120), labels=labels.astype(np.int64), task=Task.multilabel, classes={0: "a", 1: "b", 2: "c"})
    given = draw(pool, Budget(per_class=4), 0).of(pool)
    assert (given.labels.sum(axis=0) >= 4).all()
    assert (given.labels.sum(axis=1) == 0).sum() == 4


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    subset = draw(blobs(40), Budget(per_class=5), 0)
    save(subset, tmp_path / "subsets" / "a.json")
    assert load(tmp_path / "subsets" / "a.json") == subset


def _rewrite(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_tampering_is_detected(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    subset = draw(blobs(40), Budget(per_class=5), 0)
    save(subset, path)
    other = sorted({*subset.indices[1:], next(i for i in range(40) if i not in subset.indices)})
    _rewrite(path, indices=other)
    with pytest.raises(DataError, match=r"a\.json: the indices do not match their sha256"):
        load(path)


def test_an_index_file_of_other_images_is_refused(tmp_path: Path) -> None:
    subset = draw(blobs(40), Budget(per_class=5), 0)
    with pytest.raises(DataError, match="drawn from other images"):
        subset.of(blobs(40, seed=1))


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"indices": [1]}'])
def test_what_is_not_an_index_file_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"a\.json"):
        load(path)
    with pytest.raises(DataError, match=r"b\.json: no such index file"):
        load(tmp_path / "b.json")


def test_a_class_without_images_is_refused() -> None:
    pool = blobs(20)
    with pytest.raises(DataError, match="class 'place 1' has no image"):
        draw(pool.select(np.flatnonzero(pool.labels[:, 0] == 0)), Budget(per_class=1), 0)


def test_a_draw_is_the_same_in_every_version() -> None:
    # An index file of an earlier version has to point at the images that a new draw would take.
    multilabel = replace(
        blobs(30), labels=np.eye(3, dtype=np.int64)[np.arange(30) % 3] * (np.arange(30) > 8)[:, None],
        task=Task.multilabel, classes={0: "a", 1: "b", 2: "c"},
    )  # fmt: skip
    expected = {
        "17e8a2ea": (5, 27, 29, 30, 32, 34),
        "4ee6b0c1": (5, 6, 7, 8, 16, 18, 20, 29, 31, 33, 35, 38),
        "292580eb": (6, 8, 14, 15, 21, 23, 25, 28),
    }
    drawn = [
        draw(blobs(40), Budget(per_class=3), 1),
        draw(blobs(40, 4), Budget(fraction=0.25), 2),
        draw(multilabel, Budget(per_class=2), 3),
    ]
    assert {subset.content_sha256[:8]: subset.indices for subset in drawn} == expected


def test_ordered_classes_are_drawn_as_unordered_ones_are() -> None:
    pool = blobs(90, 3)
    ordered = replace(pool, task=Task.ordinal)
    one, other = (draw(each, Budget(per_class=4), 0) for each in (pool, ordered))
    assert one == other and one.per_class == {"place 0": 4, "place 1": 4, "place 2": 4}


def _numbers(count: int) -> Cases:
    ages = np.random.default_rng(0).uniform(20, 80, size=(count, 1))
    return replace(blobs(count), labels=ages, task=Task.regression, classes={0: "age"})


def test_of_numbers_a_fraction_of_all_is_drawn_and_not_so_many_per_class() -> None:
    pool = _numbers(50)
    few, more = (draw(pool, Budget(fraction=share), 0) for share in (0.1, 0.5))
    assert (len(few.indices), len(more.indices), few.per_class, few.shortage) == (5, 25, {}, "")
    assert set(few.indices) < set(more.indices)
    with pytest.raises(DataError, match="blobs: numbers have no classes, so 5 per class cannot be drawn; give a frac"):
        draw(pool, Budget(per_class=5), 0)


def test_numbers_that_differ_behind_the_point_are_other_cases() -> None:
    pool = _numbers(10)
    assert pool.labels is not None
    assert pool.content_sha256() != replace(pool, labels=np.floor(pool.labels)).content_sha256()


def test_a_census_counts_classes_and_gives_the_range_of_numbers() -> None:
    pool = blobs(10)
    rare = pool.select(np.array([0, 2, 4, 5]))
    assert list(describe({"train": pool, "test": rare})) == [
        "blobs: class 0 place 0  5 train, 3 test",
        "blobs: class 1 place 1  5 train, 1 test",
    ]
    ages = replace(pool, labels=np.arange(10.0)[:, None], task=Task.regression, classes={0: "age"}, warnings=("odd",))
    new = replace(pool, labels=None)
    assert list(describe({"train": ages, "test": new})) == [
        "blobs: warning: odd",
        "blobs: number 0 age  10 train from 0 to 9, 4.5 in the mean",
        "blobs: 10 test without a label",
    ]
