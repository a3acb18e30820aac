"""The table of an evaluation: one number in each row, with all that it depends on."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from medmnist.evaluator import getACC, getAUC
from sklearn.metrics import average_precision_score

from data_shards.support.documents import parse
from data_shards.support.errors import DataError
from finetune.config import EvaluateConfig
from finetune.evaluation import evaluate_bundles
from finetune.readers import read_cases, read_new
from finetune.report.document import ReportData
from finetune.reported import report
from finetune.study.arms import BASELINE, RAW, baseline_arm, recipe_arms
from finetune.study.compare import Pretrained, compare
from finetune.study.tidy import COLUMNS, Said, Tidy
from finetune.subsets import Budget, indices_sha256, load
from medformer.cli import main
from pretrain.bundle import save_bundle
from tests.finetune.samples import TINY, blobs, of_target, tiny_backbone

KEY = ("dataset", "model", "weights", "protocol", "arm", "budget", "seed", "group_by", "group", "class", "metric")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty images; the table says their split, site and sex."""
    folder = tmp_path_factory.mktemp("images")
    cases = blobs(60, seed=1)
    lines = ["file,label,split,site,sex,ward"]
    for index, (pixels, label) in enumerate(zip(cases.images, cases.targets, strict=True)):
        np.save(folder / f"{index}.npy", pixels)
        split = "train" if index < 30 else "val" if index < 36 else "test"
        site, sex = "north" if index % 3 else "south", "" if index == 59 else "mf"[index // 2 % 2]
        lines.append(f"{index}.npy,{('left', 'right')[label]},{split},{site},{sex},w{index}")
    (folder / "table.csv").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def evaluated(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("evaluated")
    bundle = save_bundle(home / "tiny", tiny_backbone(), "medformer_nano", TINY, {}, {})
    words = ["evaluate", str(bundle), "--data", str(images), "--csv", str(images / "table.csv"), "--per-class", "4"]
    asked = ["--strategies", "frozen", "--full", "--epochs", "2", "--groups", "site", "sex"]
    assert main([*words, *asked, "--out", str(home / "out")]) == 0
    return home / "out"


def rows_of(folder: Path) -> list[dict[str, Any]]:
    document = json.loads((folder / "results.json").read_text())
    assert tuple(document["columns"]) == COLUMNS
    return document["rows"]


def test_every_row_is_one_number_told_apart_by_what_it_depends_on(evaluated: Path) -> None:
    rows = rows_of(evaluated)
    assert all(set(row) == set(COLUMNS) for row in rows)
    assert set(Counter(tuple(row[name] for name in KEY) for row in rows).values()) == {1}
    for row in rows:
        for name in ("index_sha256", "train_sha256", "test_sha256"):
            assert len(row[name]) == 64
        assert row["distinct_labelled_images"] <= row["labelled_images"]
        if row["low"] is not None:
            assert row["low"] <= row["value"] <= row["high"]


def test_csv_and_json_have_the_same_rows_in_the_same_order(evaluated: Path) -> None:
    with open(evaluated / "results.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    rows = rows_of(evaluated)
    assert len(lines) == len(rows) and tuple(lines[0]) == COLUMNS
    for line, row in zip(lines, rows, strict=True):
        for name, cell in line.items():
            value = row[name]
            if value is None:
                assert cell == ""
            elif isinstance(value, bool):
                assert cell == str(value).lower()
            elif isinstance(value, float):
                assert float(cell) == value
            else:
                assert cell == str(value)


def test_models_protocols_budgets_seeds_and_parts_are_all_there(evaluated: Path) -> None:
    rows = rows_of(evaluated)
    found = {(row["model"], row["weights"], row["protocol"]) for row in rows}
    networks = {("tiny", weights) for weights in ("random", "pretrained")}
    assert found == {
        ("constant", "none", "constant"),
        *(("raw pixels", "none", protocol) for protocol in ("knn", "linear", "few_label", "full")),
        *((*network, protocol) for network in networks for protocol in ("knn", "linear", "few_label", "full")),
    }
    whole = [row for row in rows if not row["group_by"] and not row["class"]]
    assert {row["metric"] for row in whole} == {"auc", "acc", "balanced_acc", "average_precision", "brier", "ece"}
    assert {row["class"] for row in rows} == {"", "left", "right"}
    groups = {(row["group_by"], row["group"]) for row in rows}
    sexes = {("sex", "m"), ("sex", "f"), ("sex", "not stated")}
    assert groups == {("", ""), ("site", "north"), ("site", "south"), *sexes}
    compared = [row for row in rows if row["protocol"] in ("few_label", "full")]
    assert {row["seed"] for row in compared} == {0, 1, 2}
    whole = {row["arm"] for row in compared if row["protocol"] == "full"}
    assert whole == {RAW, "from scratch, recipe", "pretrained, recipe"}


def test_index_hashes_are_those_of_the_index_files_and_of_all_labels(evaluated: Path, images: Path) -> None:
    rows = rows_of(evaluated)
    train = read_cases(images, csv=images / "table.csv")["train"]
    for row in rows:
        if row["budget"] == "4 per class":
            subset = load(evaluated / "subsets" / f"table-4-per-class-seed{row['seed']}.json")
            assert row["index_sha256"] == subset.indices_sha256 and row["labelled_images"] == 8
        else:
            assert row["index_sha256"] == indices_sha256(np.arange(30)) and row["labelled_images"] == 30
        assert row["train_sha256"] == train.content_sha256()


def test_the_constant_stands_beside_every_number_and_raw_pixels_beside_every_network(evaluated: Path) -> None:
    rows = rows_of(evaluated)
    part = ("group_by", "group", "class", "metric")
    constants = {tuple(row[name] for name in part): row["value"] for row in rows if row["model"] == "constant"}
    for row in rows:
        assert row["constant"] == constants[tuple(row[name] for name in part)]
    raw = {
        tuple(row[name] for name in ("protocol", "budget", "seed", *part))
        for row in rows
        if row["model"] == "raw pixels"
    }
    for row in rows:
        if row["model"] == "tiny":
            assert tuple(row[name] for name in ("protocol", "budget", "seed", *part)) in raw


def test_the_page_is_drawn_again_from_what_it_says(evaluated: Path, tmp_path: Path) -> None:
    again = report(evaluated, tmp_path / "again.html")
    assert again.read_text() == (evaluated / "report.html").read_text()


def test_the_page_has_the_scores_of_every_group(evaluated: Path) -> None:
    told = ReportData.model_validate_json((evaluated / "report.json").read_text()).groups
    rows = [row for row in rows_of(evaluated) if row["group_by"] and row["model"] != "constant"]
    names = ("group_by", "group", "model", "weights", "arm", "budget")
    by_says: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        by_says.setdefault((row["protocol"], *(row[name] for name in names)), []).append(row)
    assert len(told) == len(by_says)
    shown = {(each.group_by, each.group, each.model, each.weights, each.arm, each.labels): each for each in told}
    assert len(shown) == len(told)
    for says, mine in by_says.items():
        result = shown[says[1:]]
        for score, metric in ((result.auc, "auc"), (result.accuracy, "acc")):
            drawn = [row["value"] for row in mine if row["metric"] == metric]
            assert result.draws == len(drawn) == (3 if says[0] in ("few_label", "full") else 1)
            assert score.value == (None if None in drawn else pytest.approx(np.mean(drawn)))
        assert result.images == mine[0]["images"] and result.lacking == mine[0]["lacking"]
    page = (evaluated / "report.html").read_text()
    assert ": by site, with 95 % bootstrap interval over test subjects" in page and "not stated" in page


def test_the_page_says_what_a_constant_scores_and_what_arms_are(evaluated: Path, images: Path) -> None:
    page = (evaluated / "report.html").read_text()
    splits = read_cases(images, csv=images / "table.csv")
    test = splits["test"].known_labels[:, 0]
    share = np.mean(test == np.bincount(splits["train"].known_labels[:, 0]).argmax())
    assert f"table: always saying the commonest class gives ACC {share:.3f} on the test split." in page
    assert "pretrained, recipe" in page and "every weight trained by the reference recipe" in page


@pytest.mark.parametrize("name", ["binary", "multiclass", "ordinal", "multilabel"])
def test_numbers_of_the_table_are_recomputed_from_the_predictions(name: str, tmp_path: Path) -> None:
    splits = {"train": of_target(name, 40, seed=1), "test": of_target(name, 24, seed=2)}
    arms = recipe_arms(["tiny"], 2)
    models = {"tiny": Pretrained(tiny_backbone(9), tiny_backbone)}
    tidy = Tidy(splits["train"], splits["test"], 0)
    words = {"ordinal": "ordinal-regression", "multilabel": "multi-label, binary-class"}.get(name, f"{name[:5]}-class")
    words = "binary-class" if name == "binary" else words
    for row in compare(splits, models, arms, budgets=[Budget(fraction=0.5)], seeds=[0, 1, 2], folder=tmp_path):
        arm = next(each for each in arms if each.name == row.arm)
        found = {(each["class"], each["metric"]): each for each in tidy.rows(Said.by_arm(row, arm, "few_label"))}
        labels, said = splits["test"].known_labels, row.probabilities
        assert found["", "auc"]["value"] == pytest.approx(getAUC(labels, said, words), abs=1e-6)
        assert found["", "acc"]["value"] == pytest.approx(getACC(labels, said, words), abs=1e-6)
        truth = labels if name == "multilabel" else np.eye(said.shape[1], dtype=int)[labels[:, 0]]
        for number, label in enumerate(splits["test"].target.classes):
            expected = average_precision_score(truth[:, number], said[:, number])
            assert found[label, "average_precision"]["value"] == pytest.approx(expected, abs=1e-9)
        assert row.selection == "the epoch with the best AUC on a carved part of the given labels"
        assert row.chosen["trained_on"] < row.labelled_images


def test_with_all_labels_the_recipe_chooses_its_epoch_on_the_val_split(tmp_path: Path) -> None:
    splits = {"train": blobs(24, seed=1), "val": blobs(10, seed=2), "test": blobs(10, seed=3)}
    models = {"tiny": Pretrained(tiny_backbone(9), tiny_backbone)}
    given = {"seeds": [0, 1, 2], "folder": tmp_path}
    all_labels, few = (
        next(compare(splits, models, recipe_arms(["tiny"], 2), budgets=[Budget(fraction=share)], **given))
        for share in (1.0, 0.5)
    )
    assert all_labels.selection.endswith("on the val split") and all_labels.chosen["trained_on"] == 24
    assert few.selection.endswith("on a carved part of the given labels") and few.chosen["trained_on"] < 12


def test_numbers_have_a_table_and_a_page_that_says_where_they_are(images: Path, tmp_path: Path) -> None:
    place = blobs(60, seed=1).targets + np.random.default_rng(0).normal(scale=0.05, size=60).round(3)
    lines = ["file,label,split", *(f"{i}.npy,{place[i]},{'train' if i < 40 else 'test'}" for i in range(60))]
    (tmp_path / "n.csv").write_text("\n".join(lines))
    config = parse(
        EvaluateConfig, {"models": ["m"], "data": [images], "csv": tmp_path / "n.csv", "task": "regression"}, ""
    )
    bundle = save_bundle(tmp_path / "tiny", tiny_backbone(), "medformer_nano", TINY, {}, {})
    found = evaluate_bundles(config, {"m": bundle}, tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert {row["metric"] for row in rows} == {"r2", "mae", "spearman"} and {row["class"] for row in rows} == {""}
    constant = next(row for row in rows if row["model"] == "constant" and row["metric"] == "mae")
    assert constant["value"] == pytest.approx(np.abs(place[40:] - place[:40].mean()).mean())
    assert "n has numbers, of which results.csv tells." in (tmp_path / "out" / "report.html").read_text()
    assert len(found.table) == len(rows)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--groups", "site"], "groups are columns of a table of images, and no csv is given"),
        (["--baselines", "tangent"], "baselines are arms of a comparison; give per_class, fraction or full"),
        (["--full", "--baselines", "resnet50"], "baselines"),
        (["--full", "--epochs", "0"], "epochs"),
        (["--per-class", "0"], "per_class.0: Input should be greater than or equal to 1"),
        (["--fraction", "0"], "fraction.0: Input should be greater than 0"),
        (["--fraction", "0.1", "1.5"], "fraction.1: Input should be less than or equal to 1"),
        (["--fraction", "nan"], "fraction.0"),
        (["--seeds", "-1", "0", "1"], "seeds.0: Input should be greater than or equal to 0"),
        (["--full", "--seeds", "0", "1"], "at least 3 different seeds"),
    ],
)
def test_what_cannot_be_asked_for_is_one_line_and_leaves_nothing(
    images: Path, tmp_path: Path, change: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", "medformer_nano", "--data", str(images), "--out", str(tmp_path / "out")]
    assert main([*words, *change]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("sit", "no column 'sit' for the role groups; did you mean 'site'?"),
        ("ward", "column 'ward' has 60 different values in 60 cases; scores are grouped by at most 20"),
        ("patient id", "is the number or name of a person"),
        ("patient", "'patient' for groups is the number or name of a person"),
        ("label", "'label' for groups is the label: a group would have one class"),
        ("file", "'file' for groups is the path"),
        ("seen", "'seen' for groups has dates, which tell people apart"),
        ("nickname", "'nickname' for groups has a value of its own for each of the 12 subjects"),
    ],
)
def test_a_column_that_groups_nothing_or_names_people_is_refused(images: Path, column: str, message: str) -> None:
    header, *rows = (images / "table.csv").read_text().split("\n")
    if column in ("patient id", "patient"):
        header = header.replace("ward", column)
    lines = [f"{header},seen,nickname,subject"]
    # Twelve subjects, five images each, each in one split.
    lines += [f"{row},2021-0{at % 4 + 1}-01,{chr(97 + at // 5)}oe,{at // 5}" for at, row in enumerate(rows)]
    (images / "other.csv").write_text("\n".join(lines).replace(",val,", ",test,"))
    with pytest.raises(DataError, match=message):
        read_cases(images, csv=images / "other.csv", options={"columns": {"groups": [column]}})


def test_groups_go_with_their_cases(images: Path) -> None:
    splits = read_cases(images, csv=images / "table.csv", options={"columns": {"groups": ["site", "sex"]}})
    test = splits["test"]
    assert test.groups["site"].tolist() == ["north" if index % 3 else "south" for index in range(36, 60)]
    assert test[[5, 2]].groups["sex"].tolist() == [test.groups["sex"][5], test.groups["sex"][2]]
    with pytest.raises(DataError, match="24 cases but 2 groups of site"):
        replace(test, groups={"site": np.array(["a", "b"])})
    assert dict(read_cases(images, csv=images / "table.csv")["test"].groups) == {}


@pytest.mark.parametrize("together", ["study", "bag"])
def test_images_of_one_case_are_of_one_group(images: Path, together: str) -> None:
    lines = [f"file,label,site,{together}"]
    lines += [f"{index}.npy,{'ab'[index // 2 % 2]},s{index},c{index // 2}" for index in range(8)]
    if together == "study":
        lines = [f"{line},{'image' if not at else ('t1', 't2')[at % 2]}" for at, line in enumerate(lines)]
    (images / "pairs.csv").write_text("\n".join(lines))
    with pytest.raises(DataError, match="another group than"):
        read_cases(images, csv=images / "pairs.csv", options={"columns": {"groups": ["site"]}})


def test_new_cases_need_no_groups(images: Path) -> None:
    train = read_cases(images, csv=images / "table.csv", options={"columns": {"groups": ["site"]}})["train"]
    rows = [line.split(",")[:2] for line in (images / "table.csv").read_text().splitlines()]
    (images / "new.csv").write_text("\n".join(",".join(row) for row in rows))
    assert train.recipe is not None
    new = read_new(images, train.recipe, csv=images / "new.csv")
    assert len(new) == 60 and dict(new.groups) == {}


@pytest.mark.slow
def test_the_baselines_are_arms_that_are_named(images: Path, tmp_path: Path) -> None:
    bundle = save_bundle(tmp_path / "tiny", tiny_backbone(), "medformer_nano", TINY, {}, {})
    content = {"models": ["m"], "data": [images], "csv": images / "table.csv", "full": True, "epochs": 1}
    config = parse(EvaluateConfig, {**content, "baselines": ["resnet18", "tangent"]}, "")
    found = evaluate_bundles(config, {"m": bundle}, tmp_path / "out")
    mine = [row for row in rows_of(tmp_path / "out") if row["model"] == BASELINE]
    assert {(row["protocol"], row["weights"], row["seed"]) for row in mine} == {
        ("full", "random", s) for s in (0, 1, 2)
    }
    assert [row.arm for row in found.full][-1] == baseline_arm(1).name
    assert all(math.isfinite(row["value"]) for row in mine if row["metric"] == "acc")
    tangent = {(row.arm, row.seed) for row in found.full if "tangent" in row.arm}
    both = ("random network, frozen, tangent", "pretrained, frozen, tangent")
    assert tangent == {(arm, seed) for arm in both for seed in (0, 1, 2)}
