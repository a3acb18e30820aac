from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from data_shards.support.errors import ConfigError, DataError
from finetune.comparison import ARMS, FINETUNED, SCRATCH, ComparisonRow, compare
from finetune.evaluation import evaluate
from finetune.representations import Frozen, RawPixels
from finetune.student import mean_interval, t_quantile
from finetune.subsets import Budget, load
from finetune.summary import summarise, write_comparison
from tests.finetune.samples import blobs, tiny_backbone

SPLITS = {"train": blobs(60, seed=1), "val": blobs(20, seed=2), "test": blobs(40, seed=3)}
OPTIONS = {"max_steps": 3, "batch_size": 4}


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
    assert _compare(folder) == rows


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


def test_t_quantiles_equal_scipy() -> None:
    for degrees in range(1, 40):
        for probability in (0.6, 0.9, 0.975, 0.995):
            assert t_quantile(probability, degrees) == pytest.approx(scipy.stats.t.ppf(probability, degrees), rel=1e-10)


def test_one_run_has_a_mean_and_no_interval() -> None:
    found = mean_interval([0.5])
    assert (found.mean, found.n) == (0.5, 1)
    assert math.isnan(found.low)


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
