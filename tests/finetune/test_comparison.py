from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from data_shards.support.errors import ConfigError, DataError
from data_shards.support.files import finite
from finetune.study.arms import FINETUNED, PRETRAINED, RANDOM, RAW, SCRATCH, Arm, arms_of, pairs_of, raw_arm
from finetune.study.compare import ComparisonRow, Pretrained, compare
from finetune.study.probing import evaluate
from finetune.study.representations import Frozen, RawPixels
from finetune.study.summary import mean_interval, remarks, summarise, write_comparison
from finetune.subsets import Budget, load
from tests.finetune.samples import blobs, of_target, solid_blobs, tiny_backbone

SPLITS = {"train": blobs(60, seed=1), "val": blobs(20, seed=2), "test": blobs(40, seed=3)}
OPTIONS = {"max_steps": 3, "batch_size": 4, "learning_rate": 1e-3}
ARMS = arms_of(["tiny"], params=OPTIONS)
SEEDS = [0, 1, 2]


def models(*names: str) -> dict[str, Pretrained]:
    """Networks that differ."""
    return {name: Pretrained(tiny_backbone(99 + number), tiny_backbone) for number, name in enumerate(names)}


TINY = models("tiny")


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[ComparisonRow], Path]:
    folder = tmp_path_factory.mktemp("subsets")
    return _compare(folder, 2, 6), folder


def _compare(folder: Path, *per_class: int) -> list[ComparisonRow]:
    budgets = [Budget(per_class=count) for count in per_class]
    return list(compare(SPLITS, TINY, ARMS, budgets=budgets, seeds=SEEDS, folder=folder))


def test_every_arm_sees_the_same_saved_images(compared: tuple[list[ComparisonRow], Path]) -> None:
    rows, folder = compared
    assert len(rows) == 5 * 2 * 3
    for budget in ("2 per class", "6 per class"):
        for seed in range(3):
            same = [row for row in rows if (row.budget, row.seed) == (budget, seed)]
            assert [row.arm for row in same] == [RAW, RANDOM, PRETRAINED, SCRATCH, FINETUNED]
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
    before = [row for row in rows if row.budget == "2 per class"]
    assert list(map(repr, _compare(folder, 2))) == list(map(repr, before)) and len(before) == 5 * 3


def test_index_files_of_other_images_stop_the_comparison(compared: tuple[list[ComparisonRow], Path]) -> None:
    other = {**SPLITS, "train": blobs(60, seed=9)}
    with pytest.raises(DataError, match="drawn from other images"):
        next(compare(other, TINY, ARMS, budgets=[Budget(per_class=2)], seeds=SEEDS, folder=compared[1]))


def test_fewer_than_three_seeds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least 3 different seeds"):
        next(compare(SPLITS, TINY, ARMS, budgets=[], seeds=[0, 1, 1], folder=tmp_path))


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
    arms = [arm for arm in ARMS if arm.name in (RAW, SCRATCH, FINETUNED)]
    splits = {"train": blobs(12, seed=1), "test": blobs(40, seed=3)}
    budgets = [Budget(per_class=6), Budget(per_class=50)]
    return list(compare(splits, TINY, arms, budgets=budgets, seeds=SEEDS, folder=tmp_path_factory.mktemp("all")))


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
    arms = [arm for arm in ARMS if arm.name in (RAW, PRETRAINED)]
    draws = {"budgets": [Budget(per_class=2)], "seeds": SEEDS}
    rows = list(compare(given, TINY, arms, folder=tmp_path / "subsets", **draws))
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
    arguments = {"budgets": [Budget(per_class=2)], "seeds": SEEDS, "folder": tmp_path}
    splits = [{"train": SPLITS["train"], "test": each} for each in (alone, test)]
    arms = [arm for arm in ARMS if arm.name in (RAW, PRETRAINED, FINETUNED)]
    pairs = [
        *zip(*(compare(each, TINY, arms, **arguments) for each in splits), strict=True),
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


def test_arms_are_data_and_networks_several(tmp_path: Path) -> None:
    """Two networks, two heads and two strategies; every arm by its name, set against what it has to beat."""
    given = {"strategies": ["frozen", "low_rank"], "heads": ["linear", "attention"]}
    arms = arms_of(["a", "b"], params={"max_steps": 2}, **given)
    whose = {
        ("random network, frozen", "random", "frozen", "linear"),
        ("pretrained, frozen", "pretrained", "frozen", "linear"),
        ("random network, frozen, attention", "random", "frozen", "attention"),
        ("pretrained, frozen, attention", "pretrained", "frozen", "attention"),
        ("pretrained, low_rank", "pretrained", "low_rank", "linear"),
        ("pretrained, low_rank, attention", "pretrained", "low_rank", "attention"),
    }
    found = {(arm.name, arm.weights, arm.params.get("strategy"), arm.params.get("head")) for arm in arms[1:]}
    assert found == {(f"{model}: {name}", *rest) for model in "ab" for name, *rest in whose}
    assert {("max_steps" in arm.params) for arm in arms if arm.params.get("strategy") == "low_rank"} == {True}
    pairs = pairs_of([arm.name for arm in arms])
    assert {baseline for arm, baseline in pairs if arm == "b: pretrained, low_rank, attention"} == {
        "b: pretrained, frozen", RAW,
    }  # fmt: skip
    assert ("a: pretrained, frozen", "a: random network, frozen") in pairs

    def read(arms: Iterable[Arm]) -> list[Arm]:
        """The embedding alone: pixels vote the same whatever the network is."""
        return [
            arm if arm.name == RAW else replace(arm, params={**arm.params, "head_options": {"reads": "embedding"}})
            for arm in arms
        ]

    frozen = read(arm for arm in arms if arm.params.get("head") != "attention" and "low_rank" not in arm.name)
    draws = {"budgets": [Budget(per_class=3)], "seeds": SEEDS, "folder": tmp_path}
    rows = list(compare(SPLITS, models("a", "b"), frozen, **draws))
    scores = {(row.arm, row.seed): row.scores.auc.estimate for row in rows}
    names = [RAW, *(f"{model}: {name}" for model in "ab" for name in (RANDOM, PRETRAINED))]
    assert list(scores) == [(name, seed) for seed in SEEDS for name in names]
    assert any(scores["a: pretrained, frozen", seed] != scores["b: pretrained, frozen", seed] for seed in SEEDS)
    # A network alone gives what it gives beside others.
    alone = compare(SPLITS, {"b": models("a", "b")["b"]}, read(arms_of(["b"], strategies=["frozen"])), **draws)
    assert {row.seed: row.scores.auc.estimate for row in alone if row.arm == PRETRAINED} == {
        seed: scores["b: pretrained, frozen", seed] for seed in SEEDS
    }


def test_an_arm_of_a_model_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="arm 'x' is of model 'other', which is none of tiny"):
        next(compare(SPLITS, TINY, [Arm("x", "pretrained", {}, "other")], budgets=[], seeds=SEEDS, folder=tmp_path))


@pytest.mark.parametrize("name", ["multiclass", "ordinal", "multilabel", "regression"])
def test_labels_of_every_kind_are_compared_and_evaluated(name: str, tmp_path: Path) -> None:
    splits = {"train": of_target(name, 40, seed=1), "test": of_target(name, 24, seed=2)}
    arms = [raw_arm(), *arms_of(["tiny"], strategies=["frozen"])[2:]]
    rows = list(compare(splits, TINY, arms, budgets=[Budget(fraction=0.5)], seeds=SEEDS, folder=tmp_path))
    assert [row.arm for row in rows] == [RAW, PRETRAINED] * 3
    write_comparison(rows, tmp_path)
    deciding = splits["train"].target.metrics[0].name
    pairs = [pair for pair in summarise(rows).pairs if pair.metric == deciding]
    assert [(pair.arm, pair.baseline, pair.over_seeds.n) for pair in pairs] == [(PRETRAINED, RAW, 3)]
    probes = list(evaluate(splits, [RawPixels()]))
    assert [row.probe for row in probes] == ["knn", "linear"]
    assert all(row.scores.metric(deciding).estimate > 0.7 for row in probes)


@pytest.mark.slow
def test_every_arm_of_a_comparison_takes_volumes(tmp_path: Path) -> None:
    splits = {name: solid_blobs(12, seed=seed) for seed, name in enumerate(("train", "test"))}
    told = {name: replace(part, spacing_mm=np.ones((12, 3))) for name, part in splits.items()}
    draws = {"budgets": [Budget(per_class=4)], "seeds": SEEDS, "folder": tmp_path}
    unknown, known = (list(compare(each, TINY, ARMS, **draws)) for each in (splits, told))
    assert [row.arm for row in known] == [arm.name for arm in ARMS] * 3
    for one, other in zip(unknown, known, strict=True):
        assert one.index_sha256 == other.index_sha256
        assert (one.scores == other.scores and one.chosen == other.chosen) == (one.arm == RAW), one.arm
