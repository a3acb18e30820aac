"""The study of another site: its sites share no image, and every arm is given what its name says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.studies.shift import LABELS, MOST, arms, dealt, place, site_of, table
from tests.finetune.samples import blobs


def test_the_sites_share_no_image_and_those_of_the_second_are_changed() -> None:
    train = blobs(80)
    source, target, few = dealt(train, 3)
    keys = [set(cases.keys.tolist()) for cases in (source, target)]
    assert not keys[0] & keys[1] and keys[0] | keys[1] == set(train.keys.tolist())
    assert np.bincount(target.targets[few]).tolist() == [LABELS // 2] * 2
    own = {str(key): image for key, image in zip(train.keys, train.images, strict=True)}
    for key, row in zip(target.keys, range(len(target)), strict=True):
        assert not np.array_equal(target.studies_of(row)[0].images["image"].pixels, own[str(key)])
    assert keys[0] != set(dealt(train, 4)[0].keys.tolist())


def test_every_arm_is_given_the_labels_that_its_name_says_and_no_image_twice() -> None:
    _, target, few = dealt(blobs(80), 0)
    for name, arm in arms().items():
        site = site_of(target, few, arm.labels, "alignment" in arm.params)
        assert (site is None) == (name.endswith("source only"))
        if site is not None:
            assert len(site.labelled or ()) == {0: 0, LABELS: len(few), MOST: len(target)}[arm.labels]
            assert len(site) == (len(few) if name.endswith(f"{LABELS} target labels") else len(target))
            assert site.unlabelled is None or site.unlabelled.labels is None
        assert arm.baseline in arms() and arms()[arm.baseline].trained == arm.trained


def test_the_table_has_what_is_there_and_pairs_seeds_that_both_have(tmp_path: Path) -> None:
    test = blobs(40)
    right = np.stack([1 - test.targets, test.targets], axis=1).astype(float)
    for arm, seeds, said in (("full, source only", (0, 1, 2), 1 - right), ("full, CORAL", (0, 1), right)):
        for seed in seeds:
            kept = place(tmp_path, "blobs", arm, seed)
            kept.parent.mkdir(parents=True, exist_ok=True)
            np.savez(kept, source=right, target=said)
    rows = table(tmp_path, {"blobs": {"test": test}}).rows
    assert [row[:3] for row in rows] == [("blobs", "full, source only", "3"), ("blobs", "full, CORAL", "2")]
    assert [float(row[4].split()[0]) for row in rows] == pytest.approx([0, 1])
    assert rows[1][5] == "source only" and rows[1][6].startswith("+1.000")
