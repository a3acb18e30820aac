from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import yaml
from sklearn.metrics import roc_auc_score

from finetune.classifier.estimator import FewLabelClassifier
from finetune.heads import HEADS
from finetune.heads.linear import LinearHead
from finetune.progress import counted, progress, watched
from finetune.subsets import load
from medformer.cli import main, parse_words
from pretrain.bundle import save_bundle
from tests.finetune.samples import TINY, blobs, tiny_backbone


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "tiny"
    return save_bundle(folder, tiny_backbone(), "medformer_nano", TINY, {}, {})


def table(path: Path, rows: Sequence[Sequence[object]], *columns: str) -> Path:
    path.write_text("\n".join([",".join(columns), *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


def read_rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty images of two classes as NPY files, and a table with a split column."""
    folder = tmp_path_factory.mktemp("images")
    images = blobs(60, seed=1)
    lines = ["file,label,split"]
    for index, (pixels, label) in enumerate(zip(images.images, images.targets, strict=True)):
        np.save(folder / f"{index}.npy", pixels)
        lines.append(f"{index}.npy,{('left', 'right')[label]},{'train' if index < 40 else 'test'}")
    (folder / "table.csv").write_text("\n".join(lines))
    return folder


def test_finetune_writes_classifier_predictions_scores_and_config(
    bundle: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["finetune", "--model", str(bundle), "--data", str(folder), "--csv", str(folder / "table.csv")]
    assert main([*words, "--per-class", "10", "--show-paths", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "20 different labelled cases of 40" in printed
    counts = [int((blobs(60, seed=1).targets[part] == 0).sum()) for part in (slice(0, 40), slice(40, 60))]
    assert f"table: class 0 left   {counts[0]} train, {counts[1]} test\n" in printed
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["fit"]["index_sha256"] == load(out / "subset.json").indices_sha256
    assert metrics["scores"]["test"]["images"] == 20
    assert (out / "config.yaml").read_text().startswith("# sha256 of the resolved configuration: ")
    assert metrics["config_sha256"] in (out / "config.yaml").read_text()
    rows = read_rows(out / "predictions.csv")
    assert {row["split"] for row in rows} == {"test"}
    loaded = FewLabelClassifier.load(out / "classifier")
    probabilities = loaded.predict_proba(np.stack([np.load(folder / row["key"]) for row in rows]))
    np.testing.assert_allclose([float(row["p(right)"]) for row in rows], probabilities[:, 1], atol=1e-6)
    assert np.mean([row["label"] == row["predicted"] for row in rows]) > 0.8


def test_classes_that_a_split_lacks_and_repeated_subjects_are_told_beside_the_scores(
    bundle: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Forty training images of three classes; the test split has ten subjects of two images, none of class c."""
    lines = ["file,label,split,subject"]
    lines += [f"{index}.npy,{'abc'[index % 3]},train,s{index}" for index in range(40)]
    lines += [f"{index}.npy,{'ab'[index // 2 % 2]},test,t{index // 2}" for index in range(40, 60)]
    (tmp_path / "table.csv").write_text("\n".join(lines))
    words = ["--data", str(folder), "--csv", str(tmp_path / "table.csv")]
    assert main(["finetune", "--model", str(bundle), *words, "--per-class", "99", "--out", str(tmp_path / "a")]) == 0
    printed = capsys.readouterr().out
    assert "test split: AUC undefined: class 'c' has no image, ACC" in printed
    assert (
        "20 images of 10 subjects. The AUC is undefined" in printed and "not shown that anything was learnt" in printed
    )
    assert "99 per class were asked for, but class 'a' has 14" in printed and "40 labels were given" in printed
    metrics = json.loads((tmp_path / "a" / "metrics.json").read_text())
    assert metrics["lacking"] == {"train": [], "test": ["class 'c' has no image"]}
    assert metrics["scores"]["test"]["auc"]["estimate"] is None and "40 labels" in metrics["shortage"]
    assert metrics["scores"]["test"]["subjects"] == 10
    assert main(["evaluate", str(bundle), *words, "--out", str(tmp_path / "b")]) == 0
    printed = capsys.readouterr()
    assert "table: class 'c' has no image in the test split" in printed.out and "of 10 subjects" in printed.out
    assert "nan" not in printed.out + printed.err


def test_without_a_test_split_every_case_is_predicted_by_models_that_did_not_see_it(
    bundle: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Forty images of twenty subjects; the estimate is a cross-validation by subject, repeated."""
    place = blobs(60, seed=1).targets
    rows = [(f"{index}.npy", "ab"[place[index]], f"s{index % 20}") for index in range(40)]
    unsplit = table(tmp_path / "unsplit.csv", rows, "file", "label", "subject")
    words = ["finetune", "--model", str(bundle), "--data", str(folder), "--csv", str(unsplit), "--folds", "3"]
    assert (
        main([*words, "--repeats", "2", "--set", "head_options.reads=embedding", "--out", str(tmp_path / "out")]) == 0
    )
    printed = capsys.readouterr().out
    assert "unsplit: 40 different labelled cases of 40, 20 subjects, seed 0\n" in printed
    assert "3-fold cross-validation by subject, repeated 2 times: AUC " in printed
    assert "The AUC of single repeats runs from" in printed and "sensitivity for 'b' is" in printed
    predictions = read_rows(tmp_path / "out" / "predictions.csv")
    assert [row["split"] for row in predictions] == ["cross-validation"] * 40
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    estimate = metrics["estimates"]["cross-validation"]
    assert (estimate["scores"]["images"], estimate["scores"]["subjects"]) == (40, 20)
    kept = FewLabelClassifier.load(tmp_path / "out" / "classifier").estimate_["cross-validation"]
    assert kept["scores"]["auc"] == estimate["scores"]["auc"] and kept["told"] == estimate["told"]
    second = np.array([float(row["p(b)"]) for row in predictions])
    auc = roc_auc_score([row["label"] == "b" for row in predictions], second)
    assert abs(auc - estimate["scores"]["auc"]["estimate"]) < 0.05  # of the mean of the repeats, not the mean of both


def test_labels_that_say_nothing_are_told_to_have_taught_nothing(
    bundle: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noise = np.random.default_rng(0).permutation(np.arange(40) % 2)
    csv_file = table(tmp_path / "noise.csv", [(f"{i}.npy", "xy"[noise[i]]) for i in range(40)], "file", "label")
    words = ["finetune", "--model", str(bundle), "--data", str(folder), "--csv", str(csv_file), "--folds", "2"]
    words += ["--set", "head_options.reads=embedding"]
    assert main([*words, "--repeats", "1", "--out", str(tmp_path / "out")]) == 0
    assert "includes 0.5: it is not shown that anything was learnt" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("labels", "options", "told"),
    [
        (lambda place, noise: [("abc"[place])], ["--folds", "0"], "No estimate was asked for"),
        (lambda place, noise: [f"grade {place}"], ["--task", "ordinal"], "weighted kappa"),
        (lambda place, noise: [10 * place + noise], ["--task", "regression"], "R2 "),
        (lambda place, noise: [place % 2, place // 2], ["--labels", "x", "y"], "AUC "),
    ],
    ids=["classes", "ordinal", "numbers", "several labels"],
)
def test_labels_of_every_kind_become_a_model_that_predicts(
    bundle: Path, tmp_path: Path, labels: Any, options: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cases, noise = blobs(36, 3, seed=1), np.random.default_rng(0).normal(size=36).round(2)
    rows = []
    for index, pixels in enumerate(cases.images):
        np.save(tmp_path / f"{index}.npy", pixels)
        rows.append((f"{index}.npy", *labels(int(cases.targets[index]), float(noise[index]))))
    columns = ["x", "y"] if len(rows[0]) > 2 else ["label"]
    csv_file = table(tmp_path / "t.csv", rows, "file", *columns)
    words = ["--data", str(tmp_path), "--csv", str(csv_file)]
    quick = [] if "--folds" in options else ["--folds", "2", "--repeats", "1"]
    finetune = ["finetune", "--model", str(bundle), *words, *options, *quick, "--out", str(tmp_path / "out")]
    assert main(finetune) == 0
    assert told in capsys.readouterr().out
    assert main(["predict", str(tmp_path / "out"), *words, "--out", str(tmp_path / "p.csv")]) == 0
    assert "these cases: " in capsys.readouterr().out
    assert len(read_rows(tmp_path / "p.csv")) == 36


def test_folders_are_classes_and_slices_of_one_bag_are_one_case(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = blobs(24, seed=1)
    rows = []
    for index, (pixels, place) in enumerate(zip(cases.images, cases.targets, strict=True)):
        path = tmp_path / "data" / "ab"[place] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(pixels[0]).save(path)
        rows.append((path.relative_to(tmp_path / "data"), "ab"[place], f"bag{place}{index // 6}"))
    words = ["finetune", "--model", str(bundle), "--data", str(tmp_path / "data"), "--folds", "2", "--repeats", "1"]
    assert main([*words, "--out", str(tmp_path / "a")]) == 0
    assert "data: class 0 a  12 train\n" in capsys.readouterr().out
    bags = table(tmp_path / "bags.csv", rows, "file", "label", "bag")
    assert main([*words, "--csv", str(bags), "--out", str(tmp_path / "b")]) == 0
    assert "bags: 8 different labelled cases of 8" in capsys.readouterr().out


def test_a_document_its_keys_and_options_say_the_same(bundle: Path, folder: Path, tmp_path: Path) -> None:
    content = {"model": str(bundle), "data": str(folder), "csv": str(folder / "table.csv"), "per_class": 4}
    (tmp_path / "fit.yaml").write_text(yaml.safe_dump(content | {"head_options": {"reads": "mean"}, "seed": 1}))
    document = ["finetune", "--config", str(tmp_path / "fit.yaml")]
    assert main([*document, "--out", str(tmp_path / "a")]) == 0
    words = ["finetune", "--model", str(bundle), "--data", str(folder), "--csv", str(folder / "table.csv")]
    assert (
        main(
            [
                *words,
                "--per-class",
                "4",
                "--seed",
                "1",
                "--set",
                "head_options.reads=mean",
                "--out",
                str(tmp_path / "b"),
            ]
        )
        == 0
    )
    first, second = (read_rows(tmp_path / name / "predictions.csv") for name in "ab")
    assert first == second
    # An option counts more than the file, and a key that is set more than both.
    assert main([*document, "--seed", "3", "--set", "seed=2", "--out", str(tmp_path / "c")]) == 0
    resolved = yaml.safe_load((tmp_path / "c" / "config.yaml").read_text())
    assert (resolved["seed"], resolved["head_options"]) == (2, {"reads": "mean"})


def test_a_fresh_network_is_said_to_have_learned_nothing_and_an_ensemble_its_members(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["finetune", "--model", "medformer_nano", "--data", str(folder), "--csv", str(folder / "table.csv")]
    assert main([*words, "--per-class", "5", "--ensemble", "folds", "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("note: medformer_nano is a fresh network: its features are random")
    assert "an ensemble of 5 models\n" in printed


def test_a_registered_head_and_what_the_images_show_reach_the_classifier(
    bundle: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(HEADS, "other", LinearHead)
    words = ["finetune", "--model", str(bundle), "--data", str(folder), "--csv", str(folder / "table.csv")]
    told = ["--head", "other", "--organ", "breast", "--modality", "ultrasound"]
    assert main([*words, *told, "--per-class", "2", "--out", str(tmp_path / "out")]) == 0
    loaded = FewLabelClassifier.load(tmp_path / "out" / "classifier")
    assert loaded.head == "other" and isinstance(loaded.predictor_.members[0].head.head, LinearHead)
    assert (loaded.organ, loaded.modality) == ("breast", "ultrasound")
    assert (loaded.record_.recipe["organ"], loaded.record_.recipe["modality"]) == ("breast", "ultrasound")


def test_evaluate_refuses_to_be_told_what_archives_and_shards_know(
    bundle: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "blobs_mnist.npz"
    np.savez(
        images,
        **{f"{split}_{what}": np.zeros(1) for split in ("train", "val", "test") for what in ("images", "labels")},
    )
    words = ["evaluate", str(bundle), "--data", str(images), "--organ", "chest", "--out", str(tmp_path / "out")]
    assert main(words) == 2
    assert "an organ can be given for a folder of images only" in capsys.readouterr().err


def test_evaluate_takes_several_data_after_one_flag_or_after_several() -> None:
    one = parse_words(["evaluate", "model", "--data", "a", "b", "c", "--out", "out"])
    several = parse_words(["evaluate", "--data", "a", "b", "--out", "out", "--data", "c", "--device", "cpu", "model"])
    assert one.data == several.data == [Path("a"), Path("b"), Path("c")]
    assert one.models == several.models == ["model"]


def test_a_model_that_data_has_swallowed_is_said_to_stand_before_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["evaluate", "--out", "out", "--data", "a", "model"])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(
        "usage: medformer evaluate MODEL [MODEL ...] --data DATA [DATA ...] --out FOLDER [options]\n"
    )
    assert error.endswith("error: the following arguments are required: MODEL (before --data)\n")


def test_evaluate_prints_a_table_and_marks_what_is_not_official(
    bundle: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["evaluate", str(bundle), "--data", str(folder), "--csv", str(folder / "table.csv"), "--out", str(out)]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "table*" in printed and "* table: your own images: table.csv" in printed
    rows = json.loads((out / "evaluation.json").read_text())["rows"]
    assert [row["representation"] for row in rows] == ["raw pixels"] * 2 + ["random network"] * 2 + ["pretrained"] * 2


def test_evaluate_names_a_classifier_as_it_was_called(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = blobs(12)
    FewLabelClassifier(bundle).fit(cases.images, cases.targets).save(tmp_path / "mine" / "classifier")
    words = ["evaluate", str(tmp_path / "mine" / "classifier"), "--data", "nowhere", "--out", str(tmp_path / "out")]
    assert main(words) == 2
    assert f"error: {tmp_path / 'mine' / 'classifier'}: a fitted classifier" in capsys.readouterr().err


@pytest.mark.slow
def test_evaluate_puts_models_heads_and_strategies_into_one_table(
    bundle: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = save_bundle(tmp_path / "other", tiny_backbone(7), "medformer_nano", TINY, {}, {})
    words = ["evaluate", str(bundle), str(other), "--data", str(folder), "--csv", str(folder / "table.csv")]
    asked = ["--heads", "linear", "attention", "--strategies", "full", "low_rank", "--per-class", "3"]
    quick = ["--set", "max_steps=2"]
    assert main([*words, *asked, *quick, "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr()
    rows = json.loads((tmp_path / "out" / "comparison.json").read_text())["rows"]
    assert len({row["arm"] for row in rows}) == 1 + 2 * (2 * 2 + 2)
    for name in ("tiny", "other"):
        assert f"{name}: pretrained, low_rank, attention" in printed.out
        assert f"{name}: pretrained, full - {name}: from scratch, full" in printed.out
    assert f", {len(rows)}/{len(rows)}, 0:00:00 left\n" in printed.err
    lines = printed.out.splitlines()
    head = next(line for line in lines if line.startswith("dataset  given"))
    cells = next(line for line in lines if "tiny: pretrained, low_rank, attention  " in line)
    assert cells[head.index("mean") :].startswith("AUC ") and cells[head.index("draws") :] == "3"


def test_evaluate_takes_numbers_and_shares_of_them(
    bundle: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = blobs(60, seed=1).targets + np.random.default_rng(0).normal(scale=0.05, size=60).round(3)
    rows = [(f"{i}.npy", place[i], "train" if i < 40 else "test") for i in range(60)]
    numbers = table(tmp_path / "n.csv", rows, "file", "label", "split")
    words = ["evaluate", str(bundle), "--data", str(folder), "--csv", str(numbers), "--task", "regression"]
    assert main([*words, "--strategies", "frozen", "--fraction", "0.5", "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "n        50 %, 20 labels  pretrained, frozen" in printed and "rank correlation" in printed
    assert main([*words, "--per-class", "3", "--out", str(tmp_path / "x")]) == 2
    assert "numbers have no classes to draw so many of each; give fraction" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--head", "lineer"], "unknown head 'lineer'; did you mean 'linear'?"),
        (["--organ", "brest"], "unknown organ 'brest'; did you mean 'breast'?"),
        (["--modality", "ultrasond"], "unknown modality 'ultrasond'; did you mean 'ultrasound'?"),
        (["--per-class", "0"], "per_class"),
        (["--model", "medformer_nanno"], "did you mean 'medformer_nano'"),
        (["--csv", "nowhere.csv"], "nowhere.csv: cannot be opened: No such file"),
        (["--set", "ensembel=folds"], "unknown key 'ensembel'; did you mean 'ensemble'?"),
        (["--set", "prepare.spacng_mm=2"], "unknown key 'prepare.spacng_mm'; did you mean 'spacing_mm'?"),
        (["--set", "head_options.raeds=mean"], "'raeds'; did you mean 'reads'?"),
        (["--set", "options.framez=all"], "unknown key 'framez'; did you mean 'frames'?"),
        (["--strategy", "froze"], "unknown strategy 'froze'; did you mean 'frozen'?"),
        (
            ["--folds", "1"],
            "medformer finetune: folds: 1; a cross-validation has two or more, 0 leaves the estimate out\n",
        ),
        (["--per-class", "2", "--set", "fraction=0.5"], "give per_class or fraction, not both"),
        (["--labels", "labl"], "no column 'labl'"),
        (["--labels", "label", "--set", "options.columns.label=[label]"], "label columns are named twice"),
        (["--coverage", "2"], "coverage"),
        (
            ["--head", "mil", "--set", "head_options.area=1", "mixup=0.5", "max_steps=1"],
            "mixup and stepper mixmatch mix",
        ),
    ],
)
def test_what_cannot_be_done_is_one_line_and_leaves_nothing(
    bundle: Path, folder: Path, tmp_path: Path, change: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["finetune", "--model", str(bundle), "--data", str(folder), "--csv", str(folder / "table.csv")]
    assert main([*words, "--out", str(out), *change]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("a" * 12, "all labels are the same; expected at least two classes"),
        (
            "abcdefghijklmnopqrstuvwxyzABCDEF",
            "32 different labels in 32 studies: this looks like identifiers or measurements",
        ),
    ],
)
def test_labels_that_teach_nothing_are_refused(
    bundle: Path, folder: Path, tmp_path: Path, labels: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = table(tmp_path / "t.csv", [(f"{i}.npy", label) for i, label in enumerate(labels)], "file", "label")
    words = ["finetune", "--model", str(bundle), "--data", str(folder), "--csv", str(given)]
    assert main([*words, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


def test_a_class_of_one_subject_has_no_estimate_and_says_so(
    bundle: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = table(tmp_path / "t.csv", [(f"{i}.npy", "ab"[i == 0]) for i in range(8)], "file", "label")
    words = ["finetune", "--model", str(bundle), "--data", str(folder), "--csv", str(given)]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    assert "note: No estimate: t: a class has a single subject" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["estimates"] == {}
    assert (tmp_path / "out" / "predictions.csv").read_text() == "key,split,label,predicted,p(a),p(b)\n"
    assert main(["report", str(tmp_path / "out"), "--out", str(tmp_path / "page.html")]) == 0
    assert "No estimate was made" in (tmp_path / "page.html").read_text()


def test_what_is_there_is_not_replaced_and_no_image_is_read_for_nothing(
    bundle: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["finetune", "--model", str(bundle), "--data", str(folder), "--csv", str(folder / "table.csv")]
    words += ["--per-class", "2", "--out", str(tmp_path / "out")]
    assert main(words) == 0
    before = (tmp_path / "out" / "metrics.json").read_bytes()
    capsys.readouterr()
    assert main([*words, "--seed", "5"]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and "exists already; choose another place or pass --overwrite" in printed.err
    assert (tmp_path / "out" / "metrics.json").read_bytes() == before
    assert main([*words, "--seed", "5", "--overwrite"]) == 0
    assert (tmp_path / "out" / "metrics.json").read_bytes() != before
    for model, message in (
        ("out", "what finetune wrote, not a model bundle"),
        ("out/classifier", "a fitted classifier"),
    ):
        capsys.readouterr()
        again = ["finetune", "--model", str(tmp_path / model), "--data", str(folder), "--out", str(tmp_path / "x")]
        assert main(again) == 2
        printed = capsys.readouterr()
        assert printed.out == "" and message in printed.err and len(printed.err.splitlines()) == 1


def test_long_work_tells_how_far_it_is_in_at_most_a_hundred_columns(capsys: pytest.CaptureFixture[str]) -> None:
    """Where somebody watches, and on lines of their own where the output is no terminal."""
    with progress(3, "images", "features") as shown:
        shown.advance(3)
    with watched(), progress(3, "fits", "cross-validation") as shown:
        shown.advance(3)  # over at once: nothing to tell
    assert capsys.readouterr().err == ""
    with watched(), counted("studies", "reading") as told:
        shown_at = time.monotonic() + 1.1
        told(1, 100_000)
        while time.monotonic() < shown_at:
            time.sleep(0.05)
        told(100_000, 100_000)
        told(1, 4)  # the next split
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("reading: 100001 studies in 0:00:0") and len(line) <= 100


@pytest.mark.slow
def test_finetuning_imports_neither_cluster_software_nor_oracles() -> None:
    code = (
        "import sys\n"
        "import finetune.runs, finetune.evaluation, medformer.commands.finetune, medformer.commands.evaluate\n"
        "bad = {'ray', 'mlflow', 'deepspeed', 'lightly', 'medmnist'} & set(sys.modules)\n"
        "sys.exit(str(bad) if bad else 0)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
