from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from data_shards.format.manifest import read_manifest
from data_shards.reading.reader import ShardedDataset
from data_shards.writing.journal import Journal
from medformer.cli import main
from tests.data_shards.processes import running, session_of, until
from tests.data_shards.sources.medmnist.test_medmnist import breast_arrays

KNEES = "phantom-knee-mri-2d"
FEW = ("subjects=60", "images_per_subject=2")


def test_phantoms_are_built_inspected_and_verified(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "data")
    assert main(["shards", "build", "phantoms", "--set", KNEES, "size=16", *FEW, "--out", out]) == 0
    built = capsys.readouterr()
    assert f"{KNEES}: 90 train, 8 val, 22 test; synthetic" in built.out
    assert "120 samples in" in built.err
    assert main(["shards", "inspect", out]) == 0
    text = capsys.readouterr().out
    for part in ("Sagittal slices of knee MRI", "knee, mri, planar, multiclass", "class 2 cyst", "1x16x16 u1"):
        assert part in text
    assert "synthetic: numerical phantoms" in text
    assert main(["shards", "verify", out]) == 0
    assert "every checksum of 3 shards is right" in capsys.readouterr().out


def test_verify_ends_with_status_2_and_names_shard_and_sample(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "data")
    assert main(["shards", "build", "phantoms", "--set", KNEES, "size=8", *FEW, "--out", out]) == 0
    shard = tmp_path / "data" / KNEES / f"{KNEES}-val-000000.tar"
    content = bytearray(shard.read_bytes())
    content[700] ^= 4
    shard.write_bytes(content)
    capsys.readouterr()
    assert main(["shards", "verify", out]) == 2
    error = capsys.readouterr().err
    assert f"medformer: error: {shard}: sample " in error and "fail their CRC-32" in error


def test_ctrl_c_ends_a_build_with_one_line_and_what_was_built_is_kept(tmp_path: Path) -> None:
    words = ["phantoms", "--set", KNEES, "subjects=50000", "--workers", "2", "--shard-mb", "0.1"]
    command = [sys.executable, "-m", "medformer", "shards", "build", *words, "--out", str(tmp_path)]
    note = tmp_path / f".{KNEES}.building" / "build.journal"
    with running(command, stderr=subprocess.PIPE, text=True) as process:
        assert until(note.exists)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(60) == 130
        assert until(lambda: not session_of(process.pid))
        *progress, last = process.stderr.read().splitlines()
    assert last == "medformer: interrupted" and all(line.startswith(f"{KNEES}: ") for line in progress)
    assert Journal.read(note).records[-1]["position"] > 0


def test_an_unofficial_archive_is_built_with_its_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "noise.npz", **breast_arrays())
    words = ["shards", "build", "medmnist", "--set", "breastmnist", f"file={tmp_path / 'noise.npz'}"]
    out = ["--out", str(tmp_path / "data")]
    assert main([*words, *out]) == 2
    assert "MD5 is" in capsys.readouterr().err and not (tmp_path / "data").exists()
    assert main([*words, "unofficial=noise", *out]) == 0
    assert "546 train, 78 val, 156 test; not the official archive: noise" in capsys.readouterr().out
    assert main([*words, "unofficial=noise", *out]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main([*words, "unofficial=noise", *out, "--overwrite"]) == 0


def test_one_archive_cannot_be_several_sets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["shards", "build", "medmnist", "--set", "breastmnist", "--set", "bloodmnist"]
    assert main([*words, "file=x.npz", "--out", str(tmp_path)]) == 2
    assert "a file is the archive of one set, and 2 sets are named" in capsys.readouterr().err


def test_a_folder_that_holds_no_shards_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for action in ("inspect", "verify"):
        assert main(["shards", action, str(tmp_path / "nothing")]) == 2
        assert f"{tmp_path / 'nothing'}: not a folder of shards" in capsys.readouterr().err


@pytest.fixture
def clinic(tmp_path: Path) -> Path:
    """Twenty radiographs of ten patients with a table; file 7 is cut off."""
    root = tmp_path / "clinic"
    root.mkdir()
    with (tmp_path / "clinic.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["File", "Patient", "Finding", "Age"])
        for number in range(20):
            name = f"Doe-{number:02d}.png"
            pixels = np.random.default_rng(number).integers(0, 255, (20, 16), np.uint8)
            PIL.Image.fromarray(pixels).save(root / name)
            table.writerow([name, f"Jane-{number // 2}", ["opacity", "clear"][number % 2], 40 + number])
    (root / "Doe-06.png").write_bytes((root / "Doe-06.png").read_bytes()[:150])
    (tmp_path / "build.yaml").write_text(
        f"root: {root}\ntable: {tmp_path / 'clinic.csv'}\nname: clinic\norgan: chest\nmodality: xray\n"
        "columns: {path: File, subject: Patient, label: Finding, attributes: {age_years: Age}}\n"
    )
    return tmp_path


def test_a_table_of_files_is_built_with_what_cannot_be_read_listed(
    clinic: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["shards", "build", "images", "--config", str(clinic / "build.yaml"), "--out", str(clinic / "out")]
    assert main(words) == 2
    stopped = capsys.readouterr().err
    assert "error: row 8 of the table: " in stopped and not (clinic / "out").exists()
    tables = ["--key-table", str(clinic / "keys.csv")]
    assert main([*words, *tables, "--on-error", "skip", "--workers", "2", "prepare.size=16"]) == 0
    shown = capsys.readouterr()
    assert "1 left out, for the reasons in" in shown.out
    manifest = read_manifest(clinic / "out" / "clinic")
    assert sum(entry.samples for entry in manifest.splits.values()) == 19 and manifest.skipped == 1
    assert manifest.card.classes == {0: "clear", 1: "opacity"} and manifest.attributes == ("age_years",)
    assert manifest.splits["train"].images["image"].shape == (1, 16, 16)
    public = [*(clinic / "out").rglob("*.*")]
    for told in (stopped, shown.out, shown.err, *(path.read_bytes().decode("latin-1") for path in public)):
        assert "Jane" not in told and "Doe" not in told
    # The private table of the owner leads back from every key.
    with (clinic / "keys.csv").open(newline="") as file:
        origin = {row["key"]: row for row in csv.DictReader(file)}
    dataset = ShardedDataset(clinic / "out" / "clinic", "train")
    records = dataset.read(np.arange(len(dataset)))
    for key, label, age in zip(records.key_B, records.label_BL[:, 0], records.attributes["age_years"], strict=True):
        number = int(origin[key.decode()]["path_image"].removeprefix("Doe-").removesuffix(".png"))
        assert (label, age) == (1 - number % 2, 40 + number)


def test_inspect_counts_and_draws_a_contact_sheet(clinic: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = ["--config", str(clinic / "build.yaml"), "--on-error", "skip"]
    assert main(["shards", "build", "images", *config, "--out", str(clinic / "out")]) == 0
    out = str(clinic / "out")
    assert main(["shards", "build", "phantoms", "--set", KNEES, "size=8", *FEW, "--out", out]) == 0
    capsys.readouterr()
    sheet = clinic / "sheet.png"
    assert main(["shards", "inspect", out, "--sheet", str(sheet)]) == 0
    text = capsys.readouterr().out
    for part in ("1 items, listed in skipped.csv", "class 0 clear", "age_years", "1x20x16 u1"):
        assert part in text
    with PIL.Image.open(sheet) as picture:
        drawn = np.asarray(picture.convert("L"))
    # A row of pictures for each class, two of one dataset, three of the other: lines whose first cell is no paper.
    used = np.flatnonzero((drawn[:, 12:108] < 250).mean(1) > 0.3)
    runs = np.split(used, np.flatnonzero(np.diff(used) > 4) + 1)
    assert sum(len(run) > 80 for run in runs) == 5
    assert main(["shards", "inspect", out, "--sheet", str(sheet)]) == 2
    assert "exists already" in capsys.readouterr().err


def test_the_sources_and_their_options_are_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["shards", "sources"]) == 0
    listed = capsys.readouterr().out
    for name in ("adni", "images", "medmnist", "phantoms"):
        assert f"\n  {name} " in listed
        assert main(["shards", "sources", name]) == 0
        options = capsys.readouterr().out
        assert "prepare.spacing_mm" in options and "default None" not in options
    assert main(["shards", "sources", "image"]) == 2
    assert "did you mean 'images'?" in capsys.readouterr().err


def test_wrong_options_are_named_with_the_nearest_right_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "out")]
    for words, said in (
        (["imges", "root=x"], "did you mean 'images'?"),
        (["images", "rot=x", "name=a"], "unknown key 'rot'; did you mean 'root'?"),
        (["images", f"root={tmp_path / 'none'}", "name=a"], "no such folder"),
        (["images", f"root={tmp_path}", "name=a", "prepare.sise=3"], "did you mean 'size'?"),
        (["images", f"root={tmp_path}", "name=a"], "no image in this folder"),
        (["medmnist", "--set", "breastmnist", "size=29"], "29"),
        (["phantoms", "--set", "phantom-nee-mri"], "did you mean 'phantom-knee-mri'?"),
        (["phantoms"], "key 'sets' is missing: names of sets: phantom-abdomen-ct, "),
        (["images", "--config", str(tmp_path / "none.yaml")], "no such configuration file"),
    ):
        assert main(["shards", "build", *words, *out]) == 2, words
        assert said in capsys.readouterr().err, words
        assert not (tmp_path / "out").exists()


def test_tar_files_of_webdataset_are_indexed_and_inspected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    webdataset = pytest.importorskip("webdataset")
    pixels = np.random.default_rng(0).integers(0, 255, (6, 3, 8, 8), np.uint8)
    with webdataset.TarWriter(str(tmp_path / "set-train-0.tar")) as writer:
        for number, image in enumerate(pixels):
            writer.write({"__key__": f"{number:03d}", "npy": image, "cls": number % 2})
    card = (
        "name: set, title: A set, organ: skin, modality: dermatoscopy, dimensionality: planar, task: binary, "
        "classes: {0: a, 1: b}, licence: CC0, homepage: '', source_version: '1', source_checksum: {}, split_rule: given"
    )
    assert main(["shards", "index", str(tmp_path), f"card={{{card}}}"]) == 0
    assert "6 train" in capsys.readouterr().out
    assert (ShardedDataset(tmp_path, "train").read(np.arange(6)).stacked == pixels).all()
    assert main(["shards", "inspect", str(tmp_path)]) == 0 and "class 1 b" in capsys.readouterr().out
    assert main(["shards", "verify", str(tmp_path)]) == 0
