"""``medformer explain``: maps on the grid of the files that were given, a table, a page; and clear refusals."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import nibabel
import numpy as np
import PIL.Image
import pytest

from finetune.classifier.estimator import FewLabelClassifier
from finetune.readers import read_cases
from medformer.cli import main
from pretrain.bundle import save_bundle
from tests.finetune.samples import TINY, blobs, tiny_backbone
from tests.medformer.test_predict_maps import BLOB, SHAPE, affine_of, written

PREPARE = {"size": 12, "fit": "resize"}


@pytest.fixture(scope="module")
def planes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """32 pictures, a table and a classifier."""
    folder = tmp_path_factory.mktemp("planes")
    save_bundle(folder / "tiny", tiny_backbone(), "medformer_nano", TINY, {}, {})
    (folder / "images").mkdir()
    for index, pixels in enumerate(blobs(32).images):
        PIL.Image.fromarray(pixels[0]).save(folder / "images" / f"Anna-{index:02}.png")
    rows = [f"Anna-{index:02}.png,{'ab'[index % 2]},Anna {index}" for index in range(32)]
    (folder / "table.csv").write_text("\n".join(["path,label,subject", *rows]) + "\n")
    (cases,) = read_cases(folder / "images", csv=folder / "table.csv", prepare=PREPARE).values()
    FewLabelClassifier(folder / "tiny", calibrate=False).fit(cases).save(folder / "model")
    return folder


def explained(folder: Path, out: Path, method: str, *options: str) -> int:
    words = ["explain", str(folder / "model"), "--data", str(folder / "images"), "--csv", str(folder / "table.csv")]
    return main([*words, "--method", method, "--out", str(out), *options])


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_planes_have_a_map_of_their_size_a_picture_a_row_and_a_page(planes: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "maps"
    assert explained(planes, out, "occlusion", "--cases", "row 2", "row 5", "--set", "options.block=4") == 0
    said = capsys.readouterr()
    assert said.out.splitlines() == ["2 maps of 2 cases", str(out / "maps.html")]
    assert "fitted on images of 2 of these 2 cases" in said.err
    rows = rows_of(out / "maps.csv")
    assert [(row["key"], row["class"], row["method"]) for row in rows] == [
        ("row 2", rows[0]["class"], "occlusion"), ("row 5", rows[1]["class"], "occlusion"),
    ]  # fmt: skip
    for row in rows:
        with PIL.Image.open(out / row["file"]) as found:
            assert found.size == (16, 16) and found.mode == "F"
        with PIL.Image.open(out / row["picture"]) as found:
            assert found.mode == "RGB"
    document = json.loads((out / "maps.json").read_text())
    assert document["options"] == {"block": 4} and [row["key"] for row in document["maps"]] == ["row 2", "row 5"]
    page = (out / "maps.html").read_text()
    assert (
        page.count("data:image/png;base64,") == 2 and "row 5" in page and "http" not in page.replace("http-equiv", "")
    )
    words = ["predict", str(planes / "model"), "--data", str(planes / "images"), "--csv", str(planes / "table.csv")]
    assert main([*words, "--out", str(tmp_path / "p.csv")]) == 0
    by_key = {row["key"]: row for row in rows_of(tmp_path / "p.csv")}
    for row in rows:
        assert float(row["value"]) == pytest.approx(float(by_key[row["key"]][f"p({row['class']})"]), abs=1e-5)
        odds = np.log(float(row["value"]) / (1 - float(row["value"])))
        assert float(row["evidence"]) == pytest.approx(odds, abs=2e-3)


def test_a_classifier_that_learnt_nothing_is_not_painted_as_if_it_had(planes: Path, tmp_path: Path, capsys) -> None:
    labels = [f"Anna-{index:02}.png,{'ab'[index // 2 % 2]},Anna {index}" for index in range(32)]  # about nothing to see
    (tmp_path / "table.csv").write_text("\n".join(["path,label,subject", *labels]) + "\n")
    words = ["finetune", "--model", str(planes / "tiny"), "--data", str(planes / "images")]
    words += ["--csv", str(tmp_path / "table.csv"), "--repeats", "1", "--folds", "2", "--out", str(tmp_path / "out")]
    assert main([*words, "--set", "head_options.reads=embedding"]) == 0
    learnt = json.loads((tmp_path / "out" / "metrics.json").read_text())["estimates"]["cross-validation"]["scores"]
    assert "not shown that anything was learnt" in learnt["learnt"]
    words = ["explain", str(tmp_path / "out"), "--data", str(planes / "images"), "--csv", str(tmp_path / "table.csv")]
    words += ["--method", "occlusion", "--cases", "row 2", "row 3", "--set", "options.block=8"]
    capsys.readouterr()
    assert main([*words, "--out", str(tmp_path / "maps")]) == 0
    assert f"note: When the classifier was made: {learnt['learnt']}" in capsys.readouterr().err
    page = (tmp_path / "maps" / "maps.html").read_text()
    assert f"When the classifier was made: {learnt['learnt']}" in page and "study 1" not in page
    for row in rows_of(tmp_path / "maps" / "maps.csv"):
        low, high = (f"{float(row[name]):.3g}".replace("-", "\N{MINUS SIGN}") for name in ("lowest", "highest"))
        assert f"from {low} to {high} (log odds that are lost)" in page and row["says"] in page
        assert f"log odds {float(row['evidence']):.3g}" in row["says"]
        amount = max(abs(float(row["lowest"])), abs(float(row["highest"])))
        assert (float(row["scale"]) >= 0.09) and ("less than 0.1 log odds" in row["note"]) == (amount < 0.1)
    assert page.count("2 of 2 maps: what the classifier says is near guessing") == all(
        "near guessing" in row["note"] for row in rows_of(tmp_path / "maps" / "maps.csv")
    )


def test_nobody_is_named(planes: Path, tmp_path: Path) -> None:
    for method in ("grad_cam", "soft_tree"):
        out = tmp_path / method
        assert explained(planes, out, method, "--set", "sanity_cases=2") == 0
        for path in out.iterdir():
            assert b"Anna" not in path.read_bytes() and "Anna" not in path.name


def test_the_randomisation_check_is_told(planes: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "maps"
    assert explained(planes, out, "rollout", "--sanity", "--set", "sanity_cases=4", "--classes", "all") == 0
    found = json.loads((out / "sanity.json").read_text())
    assert [row["layer"] for row in found["rows"]] == ["head", "decoder", "blocks.0", "encoder", "adapter"]
    assert found["cases"] == 4 and f"note: R{found['told'][1:]}." in capsys.readouterr().err
    assert len(rows_of(out / "maps.csv")) == 64
    assert "andomisation check" in (out / "maps.html").read_text()


def test_a_tree_is_drawn(planes: Path, tmp_path: Path, capsys) -> None:
    assert explained(planes, tmp_path / "tree", "soft_tree", "--set", "options.depth=2") == 0
    said = capsys.readouterr().out
    assert "leaf 4" in said and said.endswith(f"{tmp_path / 'tree'}\n")
    assert sorted(path.name for path in (tmp_path / "tree").iterdir()) == [
        "maps.json",
        "soft_tree.svg",
        "soft_tree.txt",
    ]
    figures = json.loads((tmp_path / "tree" / "maps.json").read_text())["figures"]
    assert 0 <= figures["fidelity"] <= 1 and figures["compared_on"] + figures["fitted_to"] == 32


@pytest.mark.parametrize("prepare", [{}, {"size": [20, 32, 16]}, {"spacing_mm": 1.0}])
@pytest.mark.parametrize("turned", [False, True])
def test_maps_of_volumes_lie_on_the_files_that_were_given(tmp_path: Path, turned: bool, prepare: dict) -> None:
    save_bundle(tmp_path / "tiny", tiny_backbone(), "medformer_nano", TINY, {}, {})
    images, affine = tmp_path / "images", affine_of(turned)
    images.mkdir()
    for number in range(8):
        written(images, f"{number}.nii.gz", affine, blob=bool(number % 2))
    rows = "".join(f"{number}.nii.gz,{'ab'[number % 2]}\n" for number in range(8))
    (tmp_path / "table.csv").write_text(f"path,label\n{rows}")
    (cases,) = read_cases(images, csv=tmp_path / "table.csv", prepare=prepare).values()
    FewLabelClassifier(tmp_path / "tiny", calibrate=False, head_options={"reads": "raw"}).fit(cases).save(
        tmp_path / "model"
    )
    options = ["--classes", "b", "--show-paths", "--cases", "1.nii.gz", "2.nii.gz"]
    options += ["--set", "options.block=6", "options.step=3"]
    assert explained(tmp_path, tmp_path / "maps", "occlusion", *options) == 0
    found = rows_of(tmp_path / "maps" / "maps.csv")
    assert [row["key"] for row in found] == ["1.nii.gz", "2.nii.gz"]
    said = nibabel.load(tmp_path / "maps" / found[0]["file"])
    assert said.shape == SHAPE and said.get_data_dtype() == np.float32
    np.testing.assert_allclose(said.affine, nibabel.load(images / "1.nii.gz").affine)
    # A linear model of pixels knows the blob by its place: there the map is largest.
    place = np.unravel_index(np.asarray(said.dataobj).argmax(), SHAPE)
    assert np.abs(np.array(place) - BLOB).max() <= 3, place
    if "size" in prepare:  # of the axis of which 24 voxels of the file became 16, four at each end were not seen
        values = np.asarray(said.dataobj)
        cut = [axis for axis in range(3) if (values.take(0, axis) == 0).all() and (values.take(-1, axis) == 0).all()]
        assert len(cut) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--method", "gradcam"], "unknown method 'gradcam'; did you mean 'grad_cam'?"),
        (["--method", "instances"], "head linear, which reads .*says nothing of instances"),
        (["--method", "occlusion", "--classes", "c"], "unknown class 'c'"),
        (["--method", "occlusion", "--cases", "row 99"], "no case 'row 99'; did you mean 'row 9'"),
        (["--method", "occlusion", "--set", "options.blok=4"], "unknown key 'blok'; did you mean 'block'?"),
        (["--method", "soft_tree", "--sanity"], "method soft_tree makes no maps"),
        (["--method", "soft_tree", "--cases", "row 2", "row 3"], "2 cases; a tree is fitted to 20 at least"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line_and_leaves_nothing(
    planes: Path, tmp_path: Path, capsys, words: list[str], message: str
) -> None:
    name, method, *options = words
    assert name == "--method" and explained(planes, tmp_path / "maps", method, *options) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("medformer: error: ") and re.search(message, line), line
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_exists_a_missing_image_and_no_data_are_refused(planes: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "maps").mkdir()
    assert explained(planes, tmp_path / "maps", "occlusion") == 2
    assert "exists already; choose another place or pass --overwrite" in capsys.readouterr().err
    (tmp_path / "table.csv").write_text("path\nAnna-00.png\nBerta.png\n")
    words = ["explain", str(planes / "model"), "--data", str(planes / "images"), "--csv", str(tmp_path / "table.csv")]
    assert main([*words, "--method", "occlusion", "--out", str(tmp_path / "new")]) == 2
    assert re.search(r"row 3 of the table: .*", capsys.readouterr().err) and not (tmp_path / "new").exists()
    words = ["explain", str(planes / "model"), "--data", str(tmp_path / "nowhere"), "--method", "occlusion"]
    assert main([*words, "--out", str(tmp_path / "new")]) == 2
    assert "no such file or folder" in capsys.readouterr().err
