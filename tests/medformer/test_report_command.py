"""``medformer report``: the page that a fine-tuning leaves, and the one that is asked for."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from finetune.report.run.results import read_run
from medformer.cli import main
from pretrain.bundle import save_bundle
from tests.finetune.samples import TINY, blobs, tiny_backbone


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty pictures of two classes, two of a subject, with a test split; and a run on them."""
    folder = tmp_path_factory.mktemp("site")
    save_bundle(folder / "tiny", tiny_backbone(), "medformer_nano", TINY, {}, {})
    (folder / "images").mkdir()
    cases = blobs(60, seed=1)
    rows = ["path,label,split,subject"]
    for place, (pixels, label) in enumerate(zip(cases.images, cases.targets, strict=True)):
        PIL.Image.fromarray(pixels[0]).save(folder / "images" / f"Anna-{place}.png")
        rows.append(f"Anna-{place}.png,{('well', 'ill')[label]},{'train' if place < 36 else 'test'},Anna {place // 2}")
    (folder / "table.csv").write_text("\n".join(rows) + "\n")
    words = ["--model", str(folder / "tiny"), "--data", str(folder / "images"), "--csv", str(folder / "table.csv")]
    words += ["--set", "head_options.reads=embedding"]
    assert main(["finetune", *words, "--out", str(folder / "run")]) == 0
    return folder


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_a_fine_tuning_leaves_a_page_whose_scores_are_those_of_its_record(site: Path) -> None:
    page = (site / "run" / "report.html").read_text()
    assert "data:image" not in page and "Anna" not in page and str(site) not in page
    results = read_run(site / "run").results[0]
    metrics = json.loads((site / "run" / "metrics.json").read_text())
    scores = metrics["scores"]["test"]
    for name, found in results.scores.metrics.items():
        for end in ("estimate", "low", "high"):
            assert getattr(found, end) == pytest.approx(scores[name][end], abs=1e-4)
    assert (results.scores.images, results.scores.subjects) == (24, 12) == (scores["images"], scores["subjects"])
    assert metrics["data"]["splits"]["test"] == {"cases": 24, "subjects": 12, "classes": {"ill": 12, "well": 12}}
    point = metrics["estimates"]["test"]["operating_point"]
    rows = rows_of(site / "run" / "predictions.csv")
    second = results.classes[1]
    assert all((row["at threshold"] == second) == (float(row[f"p({second})"]) > point["threshold"]) for row in rows)
    assert [row["subject"] for row in rows] == [str(place // 2 + 1) for place in range(24)]
    assert {row["abstains"] for row in rows} <= {"yes", "no"}


def test_images_and_maps_stand_on_the_page_where_they_are_asked_for(
    site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "page.html"
    assert main(["report", str(site / "run"), "--images", "--out", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    page = out.read_text()
    assert page.count('class="look"') == 24 and "Anna" not in page
    words = ["explain", str(site / "run"), "--data", str(site / "images"), "--csv", str(site / "table.csv")]
    words += ["--method", "occlusion", "--set", "options.block=8", "--cases", "row 38", "row 40"]
    assert main([*words, "--out", str(tmp_path / "maps")]) == 0
    maps = ["report", str(site / "run"), "--explanations", str(tmp_path / "maps"), "--out"]
    assert main([*maps, str(tmp_path / "maps.html")]) == 0
    assert (tmp_path / "maps.html").read_text().count("data:image/png") == 2
    table = tmp_path / "maps" / "maps.csv"
    text = table.read_text()
    value = rows_of(table)[0]["value"]
    table.write_text(text.replace(value, "0.123456"))
    capsys.readouterr()
    assert main([*maps, str(tmp_path / "other.html")]) == 2
    assert "row 38 has" in (said := capsys.readouterr().err) and "another classifier or split" in said
    assert not (tmp_path / "other.html").exists()


def test_what_cannot_be_shown_is_refused_in_a_line_and_leaves_the_page_as_it_was(
    site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (site / "run" / "report.html").read_bytes()
    table = site / "table.csv"
    text = table.read_text()
    try:
        lines = text.splitlines()
        lines[40] = (
            lines[40].replace(",well,", ",ill,") if ",well," in lines[40] else lines[40].replace(",ill,", ",well,")
        )
        table.write_text("\n".join(lines) + "\n")
        assert main(["report", str(site / "run"), "--images"]) == 2
        assert "row 41 has another label than in the run" in capsys.readouterr().err
    finally:
        table.write_text(text)
    for words, said in (
        (["--threshold", "2"], "the threshold is 2, expected a probability between 0 and 1"),
        (["--positive", "il"], "no class 'il'; did you mean 'ill'"),
        (["--explanations", str(tmp_path)], "expected what medformer explain writes"),
        (["--out", str(table)], "exists already"),
    ):
        assert main(["report", str(site / "run"), *words]) == 2
        assert said in capsys.readouterr().err
    assert main(["report", str(tmp_path)]) == 2
    assert "no metrics.json and predictions.csv of a fine-tuning" in capsys.readouterr().err
    assert (site / "run" / "report.html").read_bytes() == before and table.read_text() == text


def test_cross_validation_without_and_with_an_estimate_has_a_page(site: Path, tmp_path: Path) -> None:
    rows = [line.split(",") for line in (site / "table.csv").read_text().splitlines()]
    unsplit = tmp_path / "unsplit.csv"
    unsplit.write_text("\n".join(",".join([row[0], row[1], row[3]]) for row in rows) + "\n")
    words = ["finetune", "--model", str(site / "tiny"), "--data", str(site / "images"), "--csv", str(unsplit)]
    words += ["--set", "head_options.reads=embedding"]
    assert main([*words, "--folds", "3", "--repeats", "2", "--out", str(tmp_path / "cv")]) == 0
    run = read_run(tmp_path / "cv")
    metrics = run.metrics["estimates"]["cross-validation"]
    assert run.results[0].scores.auc.estimate == pytest.approx(metrics["scores"]["auc"]["estimate"], abs=1e-12)
    decided, truth = run.results[0].decided[:, 0], run.results[0].labels[:, 0]
    assert np.mean(decided[truth == 1] == 1) == pytest.approx(metrics["sensitivity"]["estimate"])
    assert np.mean(decided[truth == 0] == 0) == pytest.approx(metrics["specificity"]["estimate"])
    assert main(["report", str(tmp_path / "cv"), "--images", "--out", str(tmp_path / "cv.html")]) == 0
    assert (tmp_path / "cv.html").read_text().count('class="look"') == 60
    assert main([*words, "--folds", "0", "--out", str(tmp_path / "none")]) == 0
    assert "nothing is known of how good this model is" in (tmp_path / "none" / "report.html").read_text()
    assert main(["report", str(tmp_path / "none"), "--threshold", "0.3"]) == 2
