"""16-bit CT from NIfTI files to a classifier: every stage by the same two windows, and what differs is said."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from data_shards.format.manifest import read_manifest
from data_shards.intensity import Window, Windows
from data_shards.vocabulary import Modality, Organ, Task
from finetune.fit.encoding import encode
from finetune.predictions import open_classifier
from finetune.readers import read_new
from medformer.cli import main
from pretrain.bundle import load_bundle
from pretrain.config import PretrainConfig
from pretrain.data import open_datasets, shapes_of_images, trained_on
from pretrain.engine import run
from pretrain.metadata import Metadata
from pretrain.preflight import remarks
from tests.pretrain.runs import GroupRuntime, document, write_document

VOLUMES = 40
TWO = Windows(windows=(Window.model_validate("lung"), Window.model_validate("mediastinum")))


def chest(path: Path, number: int, *, sick: bool) -> None:
    """Lungs of -850 HU in soft tissue, int16; the sick have a nodule of 40 HU in one of them."""
    random = np.random.default_rng(number)
    values = random.normal(45, 12, (16, 16, 16))
    values[[0, -1]] = -1024
    values[3:7, 4:12, 3:13] = values[9:13, 4:12, 3:13] = random.normal(-850, 30, (4, 8, 10))
    if sick:
        x, y, z = random.choice([3, 9]), random.integers(4, 9), random.integers(3, 10)
        values[x : x + 3, y : y + 4, z : z + 4] = random.normal(40, 15, (3, 4, 4))
    values[7:9, 12:15, 6:9] = 3000
    nibabel.save(nibabel.Nifti1Image(values.round().astype(np.int16), np.diag([2.0, 2.0, 2.0, 1.0])), path)


@dataclass
class Made:
    """Files, shards, a pretrained bundle and a classifier."""

    folder: Path

    @property
    def shards(self) -> Path:
        return self.folder / "shards" / "chests"

    @property
    def bundle(self) -> Path:
        return self.folder / "run" / "bundle"

    def main(self, *words: str) -> int:
        return main([word.replace("@", str(self.folder)) for word in words])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, process_group: None) -> Made:
    folder = tmp_path_factory.mktemp("chests")
    (folder / "ct").mkdir()
    rows = ["path,subject,label,split"]
    for number in range(VOLUMES):
        chest(folder / "ct" / f"{number}.nii", number, sick=number % 2 == 1)
        split = "train" if number < 28 else "test"
        rows.append(f"{number}.nii,p{number},{('healthy', 'nodule')[number % 2]},{split}")
    (folder / "table.csv").write_text("\n".join(rows) + "\n")
    found = Made(folder)
    words = ["root=@/ct", "table=@/table.csv", "organ=chest", "modality=ct", "name=chests", "task=binary"]
    words += ["intensity=[lung,mediastinum]", "stored=int16", "--out", "@/shards", "--workers", "1"]
    assert found.main("shards", "build", "images", *words) == 0
    changes = {
        "data": {"datasets": [{"path": str(found.shards)}], "batch_size": 14},
        "objectives": {"simclr": {"hidden": 16, "out": 8}},
        "probes": {"datasets": [{"path": str(found.shards), "score": "train"}], "every_steps": 3},
        "schedule": {"epochs": 4, "max_steps": 6},
        "checkpoint": {"every_steps": 6},
    }
    config = PretrainConfig.model_validate(document(found.shards, folder / "run", **changes))
    assert run(config, GroupRuntime()) == found.bundle
    return found


def test_the_manifest_and_the_bundle_say_the_rule(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    assert read_manifest(made.shards).intensity == {"image": TWO}
    bundle = load_bundle(made.bundle)
    assert [(each.modality, each.channels, each.rule) for each in bundle.intensity] == [(("ct",), 2, TWO)]
    assert made.main("shards", "inspect", "@/shards", "--sheet", "@/sheet.png") == 0
    printed = capsys.readouterr().out
    assert "windows lung -1350 to 150, mediastinum -125 to 225 as 2 channels" in printed and "i2" in printed


def test_a_classifier_reads_new_files_as_it_read_the_shards(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "--data",
        "@/shards/chests",
        "--out",
        "@/tuned",
        "--set",
        "strategy=full",
        "max_steps=15",
        "calibrate=false",
    ]
    assert made.main("finetune", "--model", "@/run/bundle", *words) == 0
    assert "the model was trained with" not in capsys.readouterr().out
    record = json.loads((made.folder / "tuned" / "metrics.json").read_text())["fit"]
    assert record["other_rules"] == [] and record["recipe"]["images"]["image"]["rule"]["rule"] == "windows"

    # The same studies from their files.
    (made.folder / "held").mkdir()
    for number in range(28, VOLUMES):
        shutil.copy(made.folder / "ct" / f"{number}.nii", made.folder / "held")
    assert made.main("predict", "@/tuned", "--data", "@/held", "--out", "@/files.csv") == 0
    assert made.main("predict", "@/tuned", "--data", "@/shards/chests", "--split", "test", "--out", "@/s.csv") == 0
    found = [column_of(made.folder / name, "predicted") for name in ("files.csv", "s.csv")]
    assert found[0] == found[1] and (made.folder / "files.csv").read_text().count("\n") == 13
    numbers = [numbers_of(made.folder / name) for name in ("files.csv", "s.csv")]
    np.testing.assert_array_equal(*numbers)

    # By hand: numpy's windows of the stored values, and the saved network.
    classifier = open_classifier(made.folder / "tuned", "cpu")
    (study,) = read_new(made.folder / "held", classifier.record_.recipe)[[5]].studies_of(0)
    image, network = study.images["image"], classifier.predictor_.members[0].backbone
    assert image.pixels.dtype == np.int16 and (image.pixels.min(), image.pixels.max()) == (-1024, 3000)
    by_hand = np.concatenate([np.interp(image.pixels, ends, [-1, 1]) for ends in ((-1350, 150), (-125, 225))])
    known = Metadata.uniform(1, Organ(study.organ), Modality.ct, Task.self_supervised)
    with torch.no_grad():
        expected = network.features(torch.from_numpy(by_hand[None]).float(), known, image.spacing_mm).embedding_BD
        mine = encode(network, [[study]], dense=False).embedding_BD
    torch.testing.assert_close(mine, expected, atol=1e-4, rtol=1e-4)


def column_of(table: Path, name: str) -> list[str]:
    with open(table) as file:
        return [row[name] for row in csv.DictReader(file)]


def numbers_of(table: Path) -> np.ndarray:
    """The probabilities of a table of predictions."""
    with open(table) as file:
        rows = list(csv.DictReader(file))
    names = [name for name in rows[0] if name.startswith("p(")]
    assert len(names) == 2
    return np.array([[float(row[name]) for name in names] for row in rows])


def test_a_model_that_is_used_with_another_rule_says_so(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    said = "warning: the model was trained with windows lung -1350 to 150, mediastinum -125 to 225 as 2 channels; "
    embed = ["embed", "@/run/bundle", "--data", "@/ct"]
    assert made.main(*embed, "--out", "@/a.npz") == 0
    assert said + "these images come by 8 bits, 0 to 255" in capsys.readouterr().out
    assert made.main(*embed, "--out", "@/b.npz", "--set", "intensity=percentiles") == 0
    assert said + "these images come by percentiles 0.5 to 99.5 of all values" in capsys.readouterr().out
    assert made.main(*embed, "--out", "@/c.npz", "--set", "intensity=model") == 0
    assert made.main(*embed, "--out", "@/d.npz", "--set", "intensity=[lung,mediastinum]") == 0
    assert "the model was trained with" not in capsys.readouterr().out
    with np.load(made.folder / "c.npz") as one, np.load(made.folder / "d.npz") as other:
        np.testing.assert_array_equal(one["features"], other["features"])
    assert made.main(*embed, "--out", "@/e.npz", "--set", "intensity=[lung,mediastinum,bone]") == 2
    assert "which has 3 channels in place of 2" in capsys.readouterr().err

    words = ["--data", "@/shards/chests", "--set", "intensity=bone", "--out", "@/bones"]
    assert made.main("finetune", "--model", "@/run/bundle", *words) == 0
    told = said + "these images come by window bone -500 to 1300"
    assert told in capsys.readouterr().out
    (kept,) = json.loads((made.folder / "bones" / "metrics.json").read_text())["fit"]["other_rules"]
    assert kept.startswith(told.removeprefix("warning: "))
    assert made.main("predict", "@/bones", "--data", "@/shards/chests", "--out", "@/bones.csv") == 0
    told = "the classifier reads it as it learned: window bone -500 to 1300"
    assert told in capsys.readouterr().out


def test_going_on_with_images_by_another_rule_is_said_before_anything_is_trained(made: Made) -> None:
    data = {"path": str(made.shards)}
    changes = {"data": {"datasets": [data], "batch_size": 8}, "objectives": {"simclr": {"hidden": 16, "out": 8}}}
    again = document(made.shards, made.folder / "again", **changes)
    again["model"] = {**again["model"], "init_from": str(made.bundle)}
    assert remarks(PretrainConfig.model_validate(again)) == []
    assert remarks(PretrainConfig.model_validate({**again, "model": {}})) == []
    data["intensity"] = ["lung", "bone"]
    (said,) = remarks(PretrainConfig.model_validate(again))
    assert said == (
        "model.init_from: the model was trained with windows lung -1350 to 150, mediastinum -125 to 225 as 2 channels; "
        "these images come by windows lung -1350 to 150, bone -500 to 1300 as 2 channels"
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["intensity=[{low: 40, high: 40}]"], "a window from 40 to 40: its ends are equal"),
        (["intensity=[{low: 240, high: -160}]"], "a window from 240 to -160: its ends are reversed"),
        (["intensity=lung", "prepare.intensity.window=[40,400]"], "prepare.intensity brings values to 8 bits"),
        (["intensity=lung", "stored=uint16"], "file 1: image: int16 values from -1024 to 3000 are not all uint16"),
        (
            ["intensity.pet=lung"],
            "intensity.pet: no study has an image 'pet'; valid: image; a rule for every image is written by its name",
        ),
        (["stored=int17"], "stored"),
    ],
)
def test_bad_rules_end_a_build_in_one_line(
    made: Made, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    start = ["shards", "build", "images", "root=@/ct", "organ=chest", "modality=ct", "name=bad", "--out", "@/bad"]
    assert made.main(*start, *words, "--workers", "1") == 2
    error = capsys.readouterr().err.strip()
    assert said in error and "\n" not in error
    assert not (made.folder / "bad" / "bad").exists()


def test_pretraining_refuses_16_bits_that_no_rule_is_given_for(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    start = ["shards", "build", "images", "root=@/ct", "organ=chest", "modality=ct", "name=plain", "--out", "@/plain"]
    assert made.main(*start, "--workers", "1") == 0
    assert made.main("shards", "inspect", "@/plain") == 0
    assert "no rule is given, and values are not 8 bits" in capsys.readouterr().out
    changes = {"data": {"datasets": [{"path": str(made.folder / "plain" / "plain")}], "batch_size": 8}}
    config = write_document(made.folder / "plain.yaml", document(made.folder, made.folder / "refused", **changes))
    assert made.main("plan", str(config)) == 2
    said = "int16 values and no rule that brings them to the range of a network; expected "
    stored = "`intensity` of `medformer shards build`, which writes it into their manifest\n"
    assert f"{said}data.datasets.0.intensity, or {stored}" in capsys.readouterr().err
    assert made.main("shards", "augment", "@/plain/plain", "--out", "@/copies") == 2
    assert f"{said}{stored}" in capsys.readouterr().err
    changes["data"]["datasets"][0]["intensity"] = ["lung", "bone"]
    given = PretrainConfig.model_validate(document(made.folder, made.folder / "given", **changes))
    datasets = open_datasets(given)
    assert shapes_of_images(given, datasets) == [(2, 16, 16, 16)]
    assert [window.name for window in trained_on(given, datasets)[0].rule.windows] == ["lung", "bone"]
