from __future__ import annotations

import numpy as np
import pytest

from data_shards.vocabulary import Task
from finetune.bootstrap import interval, paired_difference
from finetune.metrics import accuracy, auc


def _scores(shift: float, seed: int, count: int = 120) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = (np.arange(count) % 4 == 0).astype(np.int64)
    return labels, 1 / (1 + np.exp(-generator.normal(size=count) - shift * labels))


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


def test_the_spread_of_accuracy_is_that_of_the_binomial() -> None:
    # One stratum: the labels are all alike, so the bootstrap of the mean has the known standard error.
    generator = np.random.default_rng(1)
    labels, scores = np.ones(400, dtype=np.int64), np.where(generator.random(400) < 0.8, 0.9, 0.1)
    share = float(accuracy(labels, scores, Task.binary))
    found = interval(accuracy, labels, scores, Task.binary, seed=0, replicates=4000)
    expected = 1.96 * np.sqrt(share * (1 - share) / 400)
    assert (found.high - found.low) / 2 == pytest.approx(expected, rel=0.06)


def test_pairing_removes_what_two_models_share() -> None:
    labels, scores = _scores(1.0, 0)
    slightly_better = np.clip(scores + 0.02 * labels, 0, 1)
    paired = paired_difference(auc, labels, slightly_better, scores, Task.binary, seed=0)
    alone = interval(auc, labels, scores, Task.binary, seed=0)
    assert 0 < paired.low < paired.high < 0.05
    assert paired.high - paired.low < 0.2 * (alone.high - alone.low)


def test_identical_models_differ_by_exactly_nothing() -> None:
    labels, scores = _scores(0.5, 2)
    found = paired_difference(auc, labels, scores, scores, Task.binary, seed=0)
    assert (found.estimate, found.low, found.high) == (0.0, 0.0, 0.0)
