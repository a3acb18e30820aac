from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_shards.support.errors import DataError
from data_shards.vocabulary import Task
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
