from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data_shards.vocabulary import Modality, Organ
from finetune.estimator import FewLabelClassifier
from finetune.heads import base as heads_base
from finetune.heads.linear import LinearHead
from finetune.subsets import load
from medformer.cli import main, parse_words
from pretrain.bundle import save_bundle
from tests.finetune.samples import TINY, blobs, tiny_backbone


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "tiny"
    return save_bundle(folder, tiny_backbone(), "medformer_nano", TINY, {}, {})


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
    assert main([*words, "--per-class", "10", "--out", str(out)]) == 0
    assert "20 different labelled images of 40" in capsys.readouterr().out
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["fit"]["index_sha256"] == load(out / "subset.json").indices_sha256
    assert metrics["scores"]["test"]["images"] == 20
    assert (out / "config.yaml").read_text().startswith("# sha256 of the resolved configuration: ")
    assert metrics["config_sha256"] in (out / "config.yaml").read_text()
    with open(out / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    loaded = FewLabelClassifier.load(out / "classifier")
    probabilities = loaded.predict_proba(np.stack([np.load(folder / row["file"]) for row in rows]))
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
    assert "test: AUC undefined: class 'c' has no image, ACC" in printed and "20 images of 10 subjects" in printed
    assert "99 per class were asked for, but class 'a' has 14" in printed and "40 labels were given" in printed
    metrics = json.loads((tmp_path / "a" / "metrics.json").read_text())
    assert metrics["lacking"] == {"train": [], "test": ["class 'c' has no image"]}
    assert metrics["scores"]["test"]["auc"]["estimate"] is None and "40 labels" in metrics["shortage"]
    assert metrics["scores"]["test"]["subjects"] == 10
    assert main(["evaluate", str(bundle), *words, "--out", str(tmp_path / "b")]) == 0
    printed = capsys.readouterr()
    assert "table: class 'c' has no image in the test split" in printed.out and "of 10 subjects" in printed.out
    assert "nan" not in printed.out + printed.err


def test_every_seed_is_scored_on_the_same_images_of_a_table_without_splits(
    bundle: Path, folder: Path, tmp_path: Path
) -> None:
    lines = (folder / "table.csv").read_text().splitlines()
    (tmp_path / "unsplit.csv").write_text("\n".join(line.rpartition(",")[0] for line in lines))
    tested, drawn = [], []
    for seed in ("0", "1"):
        out = tmp_path / seed
        words = ["finetune", "--model", str(bundle), "--data", str(folder), "--csv", str(tmp_path / "unsplit.csv")]
        assert main([*words, "--per-class", "5", "--seed", seed, "--out", str(out)]) == 0
        with open(out / "predictions.csv", newline="") as file:
            tested.append([row["file"] for row in csv.DictReader(file)])
        drawn.append(load(out / "subset.json").indices_sha256)
    assert len(tested[0]) == 15 and tested[0] == tested[1]
    assert drawn[0] != drawn[1]


def test_a_registered_head_and_what_the_images_show_reach_the_classifier(
    bundle: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(heads_base._heads, "other", LinearHead)
    words = ["finetune", "--model", str(bundle), "--data", str(folder), "--csv", str(folder / "table.csv")]
    told = ["--head", "other", "--organ", "breast", "--modality", "ultrasound"]
    assert main([*words, *told, "--per-class", "2", "--out", str(tmp_path / "out")]) == 0
    loaded = FewLabelClassifier.load(tmp_path / "out" / "classifier")
    assert loaded.head == "other" and isinstance(loaded.predictor_.head, LinearHead)
    assert (loaded.predictor_.organ, loaded.predictor_.modality) == (Organ.breast, Modality.ultrasound)


def test_evaluate_refuses_to_be_told_what_archives_and_shards_know(
    bundle: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", str(bundle), "--data", str(folder), "--organ", "chest", "--out", str(tmp_path / "out")]
    assert main(words) == 2
    assert "an organ can be given for a folder of images with a CSV only" in capsys.readouterr().err


def test_evaluate_takes_several_data_after_one_flag_or_after_several() -> None:
    one = parse_words(["evaluate", "model", "--data", "a", "b", "c", "--out", "out"])
    several = parse_words(["evaluate", "--data", "a", "b", "--out", "out", "--data", "c", "--device", "cpu", "model"])
    assert one.data == several.data == [Path("a"), Path("b"), Path("c")]
    assert one.model == several.model == "model"


def test_a_model_that_data_has_swallowed_is_said_to_stand_before_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["evaluate", "--out", "out", "--data", "a", "model"])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("usage: medformer evaluate MODEL --data DATA [DATA ...] --out FOLDER [options]\n")
    assert error.endswith("error: the following arguments are required: MODEL (before --data)\n")


def test_evaluate_prints_a_table_and_marks_what_is_not_official(
    bundle: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["evaluate", str(bundle), "--data", str(folder), "--csv", str(folder / "table.csv"), "--out", str(out)]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "table*" in printed and "* table is not an official dataset" in printed
    rows = json.loads((out / "evaluation.json").read_text())["rows"]
    assert [row["representation"] for row in rows] == ["raw pixels"] * 2 + ["random network"] * 2 + ["pretrained"] * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--head", "lineer"], "unknown head 'lineer'; did you mean 'linear'?"),
        (["--organ", "brest"], "unknown organ 'brest'; did you mean 'breast'?"),
        (["--modality", "ultrasond"], "unknown modality 'ultrasond'; did you mean 'ultrasound'?"),
        (["--per-class", "0"], "per_class"),
        (["--model", "medformer_nanno"], "did you mean 'medformer_nano'"),
        (["--csv", "nowhere.csv"], "nowhere.csv: no such CSV file"),
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


def test_finetuning_imports_neither_cluster_software_nor_oracles() -> None:
    code = (
        "import sys\n"
        "import finetune.runs, medformer.commands.finetune, medformer.commands.evaluate\n"
        "bad = {'ray', 'mlflow', 'deepspeed', 'lightly', 'medmnist'} & set(sys.modules)\n"
        "sys.exit(str(bad) if bad else 0)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
