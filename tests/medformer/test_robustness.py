"""``medformer robustness`` and ``medformer finetune --target``: tables, a page, a record; and clear refusals."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from finetune.classifier.estimator import FewLabelClassifier
from finetune.readers import read_cases
from medformer.cli import main
from pretrain.bundle import save_bundle
from tests.finetune.samples import TINY, blobs, tiny_backbone


@pytest.fixture(scope="module")
def planes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of two sites, tables of them, and a classifier."""
    folder = tmp_path_factory.mktemp("planes")
    save_bundle(folder / "tiny", tiny_backbone(), "medformer_nano", TINY, {}, {})
    for name, seed, less in (("here", 0, 1), ("there", 4, 3)):
        (folder / name).mkdir()
        rows = ["path,label,subject"]
        for index, pixels in enumerate(blobs(24, seed=seed).images):
            PIL.Image.fromarray(pixels[0] // less).save(folder / name / f"Anna-{index:02}.png")
            label = "ab"[index % 2] if name == "here" or index < 6 else ""
            rows.append(f"Anna-{index:02}.png,{label},{name} {index}")
        (folder / f"{name}.csv").write_text("\n".join(rows) + "\n")
    (cases,) = read_cases(folder / "here", csv=folder / "here.csv").values()
    FewLabelClassifier(folder / "tiny", calibrate=False).fit(cases).save(folder / "model")
    return folder


def measured(folder: Path, out: Path, *options: str, data: str = "here", model: str = "model") -> int:
    words = ["robustness", str(folder / model), "--data", str(folder / data), "--csv", str(folder / f"{data}.csv")]
    return main([*words, "--out", str(out), *options])


def test_a_table_a_document_and_a_page_say_the_same(planes: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "robust"
    options = ["--corruptions", "noise", "blur", "--severities", "2", "4"]
    assert measured(planes, out, *options) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == str(out / "robustness.html")
    assert "fitted on images of 24 of these 24 cases" in said.err
    with open(out / "robustness.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    kept = json.loads((out / "robustness.json").read_text())
    assert [(row["corruption"], row["severity"]) for row in rows] == [
        ("", "0"), ("noise", "2"), ("noise", "4"), ("blur", "2"), ("blur", "4"),
    ]  # fmt: skip
    for row, same in zip(rows, kept["rows"], strict=True):
        assert float(row["auc"]) == same["scores"]["auc"]["estimate"]
        assert float(row["brier"]) == same["scores"]["brier"]["estimate"]
    page = (out / "robustness.html").read_text()
    assert said.out.splitlines()[0] in page and f"{kept['rows'][2]['scores']['auc']['estimate']:.3f}" in page
    assert "nan" not in page and "nan" not in said.out
    assert "http" not in page.replace("http-equiv", "") and "<script" not in page
    assert not any(b"Anna" in path.read_bytes() for path in out.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--corruptions", "nois"], "unknown corruption 'nois'; did you mean 'noise'"),
        (["--severities", "6"], r"severities: a severity is one of 1, 2, 3, 4, 5; found \[6\]"),
    ],
)
def test_what_cannot_be_measured_is_said_in_one_line_and_leaves_nothing(
    planes: Path, tmp_path: Path, capsys, options: list[str], message: str
) -> None:
    assert measured(planes, tmp_path / "out", *options) == 2
    assert re.search(message, capsys.readouterr().err)
    assert measured(planes, tmp_path / "out", data="there") == 2
    assert "robustness is measured on cases that all have a label; these do not" in capsys.readouterr().err
    assert measured(planes, tmp_path / "out", model="tiny") == 2
    assert "a model bundle, not a fitted classifier" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def tuned(folder: Path, out: Path, *options: str) -> int:
    words = ["finetune", "--model", str(folder / "tiny"), "--data", str(folder / "here")]
    words += ["--csv", str(folder / "here.csv"), "--folds", "0", "--out", str(out)]
    return main([*words, *options])


def test_rows_of_the_target_table_with_a_label_are_learned_from_and_the_others_aligned_with(
    planes: Path, tmp_path: Path, capsys
) -> None:
    target = ["--target", str(planes / "there"), "--target-csv", str(planes / "there.csv")]
    assert (
        tuned(
            planes,
            tmp_path / "both",
            *target,
            "--alignment",
            "coral",
            "--folds",
            "2",
            "--set",
            "alignment.ridge=0.5",
            "repeats=1",
        )
        == 0
    )
    said = capsys.readouterr().out
    assert "target site: aligned by coral, 18 unlabelled and 6 labelled cases" in said
    assert "how good the classifier is at the target site is shown by labelled images of it" in said
    fit = json.loads((tmp_path / "both" / "metrics.json").read_text())["fit"]
    assert (fit["target_images"], fit["target_labelled"], fit["labelled_images"]) == (18, 6, 30)
    assert fit["alignment"] == {"name": "coral", "ridge": 0.5}
    # Without the table no label is read, and all are aligned with.
    assert tuned(planes, tmp_path / "none", *target[:2], "--alignment", "coral") == 0
    assert "target site: aligned by coral, 24 unlabelled and 0 labelled cases" in capsys.readouterr().out
    assert tuned(planes, tmp_path / "labels", *target) == 0
    assert "target site: not aligned, 18 unlabelled and 6 labelled cases" in capsys.readouterr().out


def test_a_target_that_cannot_be_used_is_said_in_one_line_and_leaves_nothing(
    planes: Path, tmp_path: Path, capsys
) -> None:
    np.save(tmp_path / "volume.npy", np.zeros((1, 6, 16, 16), np.uint8))
    solid = tmp_path / "solid"
    solid.mkdir()
    for number in range(3):
        np.save(solid / f"{number}.npy", np.random.default_rng(number).integers(0, 255, (6, 16, 16), np.uint8))
    for options, message in (
        (["--alignment", "coral"], "alignment coral needs images of the target site, and none are given"),
        (["--target", str(planes / "there")], "none of them has a label, and without an alignment nothing uses them"),
        (["--target", "nowhere", "--alignment", "coral"], "nowhere: no such file or folder"),
        (["--target", str(planes / "there"), "--alignment", "dann"], "unknown alignment 'dann'"),
        (["--alignment", "coral", "--set", "alignment.weight=-2"], "weight"),
        (["--target", str(solid), "--alignment", "coral"], "volume|axes|dimensions"),
    ):
        assert tuned(planes, tmp_path / "out", *options) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and re.search(message, lines[0]), lines
        assert not (tmp_path / "out").exists()
