"""``medformer predict``: the same numbers as the API, whatever was asked and wherever the classifier lies."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from finetune.classifier.estimator import FewLabelClassifier
from finetune.predictions import open_classifier
from finetune.readers import read_cases, read_new
from medformer.cli import main
from pretrain.bundle import save_bundle
from tests.finetune.samples import TINY, blobs, tiny_backbone


def pictures(folder: Path, count: int, seed: int, *, classes: bool = False) -> Path:
    cases = blobs(count, seed=seed)
    for index, (pixels, place) in enumerate(zip(cases.images, cases.targets, strict=True)):
        path = folder / (("left", "right")[place] if classes else "") / f"{index:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(pixels[0]).save(path)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle, what ``finetune`` made of it with forty pictures, and ten new ones with their labels in a table."""
    folder = tmp_path_factory.mktemp("made")
    save_bundle(folder / "tiny", tiny_backbone(), "medformer_nano", TINY, {}, {})
    pictures(folder / "train", 40, 1, classes=True)
    pictures(folder / "new", 10, 2)
    rows = [f"{index:02}.png,{('left', 'right')[index % 2]}" for index in range(10)]
    (folder / "new.csv").write_text("\n".join(["file,label", *rows]) + "\n")
    words = ["finetune", "--model", str(folder / "tiny"), "--data", str(folder / "train"), "--folds", "2"]
    quick = ["--repeats", "1", "--set", "head_options.reads=mean_spread"]
    assert main([*words, *quick, "--out", str(folder / "out")]) == 0
    return folder


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_the_numbers_are_those_of_the_api_to_the_last_digit(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(made / "out"), "--data", str(made / "new"), "--out", str(tmp_path / "p.csv")]) == 0
    printed = capsys.readouterr().out
    assert "10 cases predicted\n" in printed and "when it was made: 2-fold cross-validation: AUC" in printed
    assert "an expected" not in printed and "these cases" not in printed
    model = FewLabelClassifier.load(made / "out" / "classifier")
    told = model.told(read_new(made / "new", model.record_.recipe))
    rows = rows_of(tmp_path / "p.csv")
    assert list(rows[0]) == [
        "key", "predicted", "p(left)", "p(right)", "uncertainty", "disagreement", "set", "abstains", "at threshold",
    ]  # fmt: skip
    assert [[float(row["p(left)"]), float(row["p(right)"])] for row in rows] == told.probabilities.tolist()
    assert [float(row["uncertainty"]) for row in rows] == told.uncertainty.tolist()
    names = np.array(["left", "right"])
    assert [row["set"] for row in rows] == [" | ".join(names[kept]) for kept in told.sets]
    assert [row["abstains"] for row in rows] == [("no", "yes")[int(open_)] for open_ in told.abstains]
    point = model.estimate_["cross-validation"]["operating_point"]["threshold"]
    assert [row["at threshold"] for row in rows] == [names[int(b > point)] for _, b in told.probabilities]
    assert [row["key"] for row in rows] == [f"file {number}" for number in range(1, 11)]
    # The same pixels as an array give the same bits.
    pixels = np.stack([np.asarray(PIL.Image.open(path))[None] for path in sorted((made / "new").iterdir())])
    np.testing.assert_array_equal(model.predict_proba(pixels), told.probabilities)


def test_the_folder_the_classifier_and_the_registry_give_the_same_file(made: Path, tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    store = f"sqlite:///{tmp_path / 'store.db'}"
    publish = ["models", "publish", str(made / "out" / "classifier"), "--name", "sides", "--alias", "champion"]
    assert main([*publish, "--tracking-uri", store]) == 0
    found = []
    for number, name in enumerate((made / "out", made / "out" / "classifier", "sides@champion", "sides:1")):
        out = tmp_path / f"{number}.csv"
        words = ["predict", str(name), "--data", str(made / "new"), "--tracking-uri", store, "--out", str(out)]
        assert main(words) == 0
        found.append(out.read_bytes())
    assert len(set(found)) == 1


def test_labels_of_a_table_score_what_was_predicted(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["predict", str(made / "out"), "--data", str(made / "new"), "--out", str(tmp_path / "p.csv")]
    assert main([*words, "--csv", str(made / "new.csv"), "--show-paths"]) == 0
    rows = rows_of(tmp_path / "p.csv")
    right = np.mean([row["label"] == row["predicted"] for row in rows])
    assert f"ACC {right:.3f}" in capsys.readouterr().out
    assert [row["key"] for row in rows] == [f"{number:02}.png" for number in range(10)]


def test_a_split_of_an_archive_is_predicted_and_scored(
    made: Path, shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = shared_data / "medmnist" / "breastmnist.npz"
    words = ["finetune", "--model", str(made / "tiny"), "--data", str(archive), "--per-class", "10"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    words = ["predict", str(tmp_path / "out"), "--data", str(archive)]
    assert main([*words, "--split", "test", "--out", str(tmp_path / "p.csv")]) == 0
    printed = capsys.readouterr().out
    scored = next(line for line in said.splitlines() if line.startswith("test split: ")).removeprefix("test split: ")
    assert f"these cases: {scored}\n" in printed
    told = [row for row in rows_of(tmp_path / "out" / "predictions.csv") if row["split"] == "test"]
    again = rows_of(tmp_path / "p.csv")
    assert [(row["key"], row["p(malignant)"]) for row in again] == [(row["key"], row["p(malignant)"]) for row in told]
    assert main([*words, "--split", "tst", "--out", str(tmp_path / "q.csv")]) == 2
    assert "no split 'tst'; did you mean 'test'?" in capsys.readouterr().err


def test_what_does_not_fit_is_refused_in_one_line_and_writes_nothing(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "volume.npy", np.zeros((1, 8, 16, 16), np.uint8))
    PIL.Image.fromarray(np.zeros((20, 20), np.uint8)).save(tmp_path / "large.png")
    (tmp_path / "strange.csv").write_text("file,label\n00.png,top\n01.png,left\n")
    out = tmp_path / "p.csv"
    for change, message in (
        ([str(made / "tiny")], "a model bundle, not a fitted classifier; medformer finetune makes one of it"),
        (["nowhere"], "nowhere: neither the folder of a fitted classifier nor a model of the registry"),
        (["timm:resnet18"], "timm:resnet18: the name of a network, not a fitted classifier; expected the folder"),
        (["medformer_nano"], "medformer_nano: the name of a network, not a fitted classifier"),
        (["--data", "nowhere"], "nowhere: no such file or folder"),
        (["--data", str(tmp_path)], "16 x 16"),
        (["--csv", str(tmp_path / "strange.csv")], "row 2 of the table: the label is none of the 2 classes"),
        (["--split", "test"], "a split is for shards and archives"),
        (["--device", "nowhere"], "nowhere"),
    ):
        name = [str(made / "out")] if change[0].startswith("--") else []
        words = ["predict", *name, "--data", str(made / "new"), "--out", str(out), *change]
        assert main(words) == 2, change
        error = capsys.readouterr().err
        assert message in error and len(error.splitlines()) == 1, error
        assert not out.exists()
    out.write_text("mine")
    words = ["predict", str(made / "out"), "--data", str(made / "new"), "--out", str(out)]
    assert main(words) == 2
    assert "exists already" in capsys.readouterr().err and out.read_text() == "mine"
    assert main([*words, "--overwrite"]) == 0 and len(rows_of(out)) == 10


def test_a_damaged_classifier_is_refused(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "classifier"
    shutil.copytree(made / "out" / "classifier", folder)
    content = (folder / "head.safetensors").read_bytes()
    (folder / "head.safetensors").write_bytes(content[:-8])
    assert main(["predict", str(folder), "--data", str(made / "new"), "--out", str(tmp_path / "p.csv")]) == 2
    error = capsys.readouterr().err
    assert "head.safetensors" in error and len(error.splitlines()) == 1 and not (tmp_path / "p.csv").exists()


def test_a_classifier_of_arrays_does_not_know_how_files_are_read(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = read_cases(made / "train")["train"]
    cases = blobs(20, seed=1)
    model = FewLabelClassifier(made / "tiny").fit(cases.images, cases.targets)
    model.save(tmp_path / "arrays")
    assert (
        main(["predict", str(tmp_path / "arrays"), "--data", str(made / "new"), "--out", str(tmp_path / "p.csv")]) == 2
    )
    assert "it was fitted to arrays and does not know how files become images" in capsys.readouterr().err
    fitted = FewLabelClassifier(made / "tiny").fit(train)
    fitted.save(tmp_path / "files")  # by the API: no estimate is kept, and none is told
    assert open_classifier(tmp_path / "files").estimate_ == {}
    assert (
        main(["predict", str(tmp_path / "files"), "--data", str(made / "new"), "--out", str(tmp_path / "p.csv")]) == 0
    )
    assert "when it was made" not in capsys.readouterr().out


def test_images_that_it_was_fitted_on_are_counted_by_their_pixels(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed = tmp_path / "mixed"
    shutil.copytree(made / "new", mixed)
    shutil.copy(made / "train" / "left" / "00.png", mixed / "another-name.png")
    for place, said in ((made / "new", ""), (mixed, "on images of 1 of these 11 cases:"), (made / "train", "40 of")):
        capsys.readouterr()
        assert (
            main(["predict", str(made / "out"), "--data", str(place), "--out", str(tmp_path / f"{len(said)}.csv")]) == 0
        )
        error = capsys.readouterr().err
        assert said in error and len([line for line in error.splitlines() if "fitted on" in line]) == bool(said)


def test_of_few_labels_only_those_that_were_given_count_and_colour_does_not(made: Path) -> None:
    train = read_cases(made / "train")["train"]
    model = FewLabelClassifier(made / "tiny").fit(train[::5])
    assert model.predictor_.seen.among(train) == 8
    assert model.predictor_.seen.among(train[1::5]) == 0
    grey = np.stack([train.studies_of(case)[0].images["image"].pixels for case in range(len(train))])
    model.fit(grey[::5].repeat(3, axis=1), train.targets[::5])
    assert model.predictor_.seen.among(train) == 8  # grey ones are compared as the network is shown them


def test_a_registered_bundle_is_refused_by_its_name(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("mlflow")
    store = ["--tracking-uri", f"sqlite:///{tmp_path / 'store.db'}"]
    assert main(["models", "publish", str(made / "tiny"), "--name", "plain", "--alias", "champion", *store]) == 0
    words = ["predict", "plain@champion", "--data", str(made / "new"), "--out", str(tmp_path / "p.csv")]
    assert main([*words, *store]) == 2
    assert "error: plain@champion: a model bundle, not a fitted classifier" in capsys.readouterr().err
