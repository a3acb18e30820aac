from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from finetune.estimator import FewLabelClassifier
from finetune.subsets import load
from medformer.cli import main
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
        "bad = {'ray', 'mlflow', 'deepspeed', 'sklearn', 'lightly', 'medmnist'} & set(sys.modules)\n"
        "sys.exit(str(bad) if bad else 0)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
