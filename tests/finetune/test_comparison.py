from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from data_shards.support.errors import ConfigError, DataError
from data_shards.support.files import finite
from finetune.comparison import ARMS, FINETUNED, PRETRAINED, RAW, SCRATCH, ComparisonRow, compare
from finetune.evaluation import evaluate
from finetune.representations import Frozen, RawPixels
from finetune.subsets import Budget, load
from finetune.summary import mean_interval, remarks, summarise, write_comparison
from tests.finetune.samples import blobs, tiny_backbone

SPLITS = {"train": blobs(60, seed=1), "val": blobs(20, seed=2), "test": blobs(40, seed=3)}
OPTIONS = {"max_steps": 3, "batch_size": 4, "learning_rate": 1e-3}


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[ComparisonRow], Path]:
    folder = tmp_path_factory.mktemp("subsets")
    return _compare(folder), folder


def _compare(folder: Path) -> list[ComparisonRow]:
    budgets = [Budget(per_class=2), Budget(per_class=6)]
    arguments = {"budgets": budgets, "seeds": [0, 1, 2], "folder": folder, "options": OPTIONS}
    return list(compare(SPLITS, tiny_backbone(99), tiny_backbone, **arguments))


def test_every_arm_sees_the_same_saved_images(compared: tuple[list[ComparisonRow], Path]) -> None:
    rows, folder = compared
    assert len(rows) == 5 * 2 * 3
    for budget in ("2 per class", "6 per class"):
        for seed in range(3):
            same = [row for row in rows if (row.budget, row.seed) == (budget, seed)]
            assert sorted(row.arm for row in same) == sorted(ARMS)
            assert {row.index_sha256 for row in same} == {
                load(folder / f"blobs-{budget.replace(' ', '-')}-seed{seed}.json").indices_sha256
            }
            assert {row.distinct_labelled_images for row in same} == {2 * int(budget[0])}
            assert {row.scores.images for row in same} == {40}


def test_running_again_reads_the_index_files_and_gives_the_same_rows(
    compared: tuple[list[ComparisonRow], Path],
) -> None:
    rows, folder = compared
    # As text: an interval that is not defined is NaN, which equals nothing.
    assert list(map(repr, _compare(folder))) == list(map(repr, rows))


def test_index_files_of_other_images_stop_the_comparison(compared: tuple[list[ComparisonRow], Path]) -> None:
    other = {**SPLITS, "train": blobs(60, seed=9)}
    with pytest.raises(DataError, match="drawn from other images"):
        next(
            compare(
                other,
                tiny_backbone(),
                tiny_backbone,
                budgets=[Budget(per_class=2)],
                seeds=[0, 1, 2],
                folder=compared[1],
            )
        )


def test_fewer_than_three_seeds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least 3 different seeds"):
        next(compare(SPLITS, tiny_backbone(), tiny_backbone, budgets=[], seeds=[0, 1, 1], folder=tmp_path))


def test_the_paired_interval_is_the_t_interval_of_the_differences(
    compared: tuple[list[ComparisonRow], Path],
) -> None:
    rows, _ = compared
    chosen = {row.arm: [] for row in rows}
    for row in rows:
        if row.budget == "6 per class":
            chosen[row.arm].append(row.scores.auc.estimate)
    gains = np.array(chosen[FINETUNED]) - np.array(chosen[SCRATCH])
    expected = scipy.stats.t.interval(0.95, 2, gains.mean(), gains.std(ddof=1) / math.sqrt(3))
    found = next(
        pair.over_seeds
        for pair in summarise(rows).pairs
        if (pair.budget, pair.arm, pair.baseline, pair.metric) == ("6 per class", FINETUNED, SCRATCH, "auc")
    )
    assert (found.low, found.high) == pytest.approx(expected)
    assert found.n == 3


def test_json_and_csv_hold_every_row(compared: tuple[list[ComparisonRow], Path], tmp_path: Path) -> None:
    rows, _ = compared
    write_comparison(rows, tmp_path)
    document = json.loads((tmp_path / "comparison.json").read_text())
    assert len(document["rows"]) == len(rows)
    with open(tmp_path / "comparison.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [float(line["auc"]) for line in lines] == [row.scores.auc.estimate for row in rows]


def test_one_run_has_a_mean_and_no_interval() -> None:
    found = mean_interval([0.5])
    assert (found.mean, found.n) == (0.5, 1)
    assert math.isnan(found.low)


def test_runs_that_are_all_alike_have_no_interval() -> None:
    found = mean_interval([0.1 + 0.2, 0.3, 0.3])
    assert (found.mean, found.n) == (pytest.approx(0.3), 3)
    assert math.isnan(found.low) and math.isnan(found.high)


@pytest.fixture(scope="module")
def exhausted(tmp_path_factory: pytest.TempPathFactory) -> list[ComparisonRow]:
    """Budgets that take all twelve labels there are, of a test split that lacks a class."""
    splits = {"train": blobs(12, seed=1), "test": blobs(40, seed=3)}
    arguments = {"budgets": [Budget(per_class=6), Budget(per_class=50)], "seeds": [0, 1, 2], "options": OPTIONS}
    return list(compare(splits, tiny_backbone(9), tiny_backbone, folder=tmp_path_factory.mktemp("all"), **arguments))


def test_every_seed_counts_when_the_budget_takes_all_there_is(exhausted: list[ComparisonRow]) -> None:
    assert len({row.index_sha256 for row in exhausted}) == 1
    summary = summarise(exhausted)
    assert {arm.over_seeds.n for arm in summary.arms} == {pair.over_seeds.n for pair in summary.pairs} == {3}
    assert {pair.draws for pair in summary.pairs} == {1}
    scratch = next(
        pair.over_seeds
        for pair in summary.pairs
        if (pair.budget, pair.arm, pair.baseline, pair.metric) == ("50 per class", FINETUNED, SCRATCH, "auc")
    )
    assert math.isfinite(scratch.low)


def test_a_budget_that_is_not_there_is_told_with_the_real_number(exhausted: list[ComparisonRow]) -> None:
    assert {(row.budget, row.shortage) for row in exhausted} == {
        ("6 per class", ""),
        (
            "50 per class",
            "50 per class were asked for, but class 'place 0' has 6, class 'place 1' has 6: 12 labels were given",
        ),
    }
    said = remarks(exhausted)
    assert sum("12 labels were given" in sentence for sentence in said) == 1
    assert sum("every seed has the same labels" in sentence for sentence in said) == 2


def test_a_class_that_the_test_split_lacks_is_named_in_every_row(tmp_path: Path) -> None:
    test = SPLITS["test"].select(np.flatnonzero(SPLITS["test"].labels[:, 0] == 0))
    given = {"train": blobs(12, seed=1), "test": test}
    arguments = {"budgets": [Budget(per_class=2)], "seeds": [0, 1, 2], "arms": [RAW, PRETRAINED]}
    rows = list(compare(given, tiny_backbone(), tiny_backbone, folder=tmp_path / "subsets", **arguments))
    assert {row.scores.lacking for row in rows} == {("class 'place 1' has no image",)}
    assert all(math.isnan(row.scores.auc.estimate) for row in rows)
    assert remarks(rows) == ["blobs: class 'place 1' has no image in the test split; its AUC is not defined."]
    write_comparison(rows, tmp_path)
    document = json.loads((tmp_path / "comparison.json").read_text())
    assert document["rows"][0]["scores"]["lacking"] == ["class 'place 1' has no image"]
    assert finite(rows[0].as_json())["scores"]["auc"]["estimate"] is None
    probes = list(evaluate({**given, "val": test}, [RawPixels()]))
    assert {row.scores.lacking for row in probes} == {("class 'place 1' has no image",)}
    assert probes[1].selection == "val, where class 'place 1' has no image"


def test_subjects_of_the_test_split_reach_every_score(tmp_path: Path) -> None:
    alone = SPLITS["test"]
    test = replace(alone, subjects=np.arange(40) // 4)
    arguments = {"budgets": [Budget(per_class=2)], "seeds": [0, 1, 2], "options": OPTIONS, "folder": tmp_path}
    splits = [{"train": SPLITS["train"], "test": each} for each in (alone, test)]
    pairs = [
        *zip(*(compare(each, tiny_backbone(9), tiny_backbone, **arguments) for each in splits), strict=True),
        *zip(*(evaluate(each, [RawPixels()]) for each in splits), strict=True),
    ]
    for one, other in pairs:
        assert one.scores.auc.estimate == other.scores.auc.estimate
        assert (one.scores.subjects, other.scores.subjects) == (40, 10)
        assert one.scores.acc.low != other.scores.acc.low or one.scores.acc.estimate in (0.0, 1.0, 0.5)


def test_evaluation_scores_every_representation_with_both_probes() -> None:
    rows = list(evaluate(SPLITS, [RawPixels(), Frozen("pretrained", tiny_backbone())], k=5))
    assert [(row.representation, row.probe) for row in rows] == [
        ("raw pixels", "knn"),
        ("raw pixels", "linear"),
        ("pretrained", "knn"),
        ("pretrained", "linear"),
    ]
    assert all(row.labelled_images == 60 and row.scores.images == 40 for row in rows)
    assert rows[1].scores.auc.estimate > 0.95
    assert rows[1].selection == "val"


def test_a_missing_split_or_class_is_named() -> None:
    with pytest.raises(DataError, match="blobs: there is no test split"):
        list(evaluate({"train": SPLITS["train"]}, [RawPixels()]))
    one = SPLITS["train"].select(np.flatnonzero(SPLITS["train"].labels[:, 0] == 0))
    with pytest.raises(DataError, match="class 'place 1' has no image in the train split"):
        list(evaluate({**SPLITS, "train": one}, [RawPixels()]))
