"""Marks stand wherever a person could be named; every command is run, also into its errors, and tells none of them.

Marked are the names of folders and files, every text of pictures, NIfTI and DICOM headers, the cells of tables and the
keys and members of foreign tars. Searched are standard output, standard error, and all files that were written with
their names, but for the key table, which belongs to the owner of the archive.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from data_shards.format.manifest import read_manifest
from data_shards.reading.reader import ShardedDataset
from medformer.cli import main
from pretrain.bundle import save_bundle
from tests.data_shards.foreign.foreign_tars import handmade, picture
from tests.data_shards.sources.images.dicom.make import stack
from tests.data_shards.sources.images.dicom.test_privacy import MARKS, NEEDED, mark_everything
from tests.data_shards.sources.images.make import chunk
from tests.data_shards.sources.images.test_privacy import MARK, archive
from tests.finetune.samples import TINY, tiny_backbone

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

COUNT = 24
HEADER = "file,label,subject,PatientName,PatientAge,birth date,MRN,note,score"
Tell = Callable[..., bytes]


@pytest.fixture
def tell(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Tell:
    """Run a command that ends with a status; what it said, and that it said no mark."""

    def run(status: int, *words: object, has: str = "") -> bytes:
        capfd.readouterr()
        ended = main([str(word) for word in words])
        out, err = capfd.readouterr()
        assert ended == status, (words, out, err)
        said = (out + err).encode()
        assert has in out + err, (words, out, err)
        assert "Traceback" not in out + err
        clean(said.replace(str(tmp_path).encode(), b""))
        return said

    return run


def clean(content: bytes) -> None:
    assert not [mark for mark in MARKS if mark in content], content[:2000]


def clean_files(folder: Path) -> None:
    """No name and no byte of what lies there has a mark."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    for path in files:
        clean(path.relative_to(folder).as_posix().encode())
        clean(path.read_bytes())


def pixels(number: int) -> np.ndarray:
    """Noise; odd numbers are brighter."""
    return (np.random.default_rng(number).integers(0, 120, (16, 16)) + 100 * (number % 2)).astype(np.uint8)


def marked_png(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = picture(pixels(number), "PNG")
    text = chunk(b"tEXt", b"Author\0" + MARK.encode())
    path.write_bytes(content[:33] + text + content[33:])


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Pictures of twelve patients, all older than 89, with a table of everything that is known of them."""
    rows = []
    for number in range(COUNT):
        name = f"{MARK}^Doe{number // 2}/19870605/{MARK}{number}.png"
        marked_png(tmp_path / "site" / name, number)
        person = f"{MARK}{number // 2},{MARK}^Doe,{90 + number},19870605,987654321,{MARK} fell"
        rows.append(f"{name},{('well', 'sick')[number % 2]},{person},{number / 4}")
    (tmp_path / "table.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    return tmp_path / "site"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bundle(tmp_path_factory.mktemp("bundles") / "tiny", tiny_backbone(), "medformer_nano", TINY, {}, {})


def edited(site: Path, old: str, new: str) -> Path:
    """The table with one change."""
    text = (site.parent / "table.csv").read_text()
    assert old in text
    path = site.parent / "edited.csv"
    path.write_text(text.replace(old, new, 1))
    return path


def test_the_search_would_find_marks(site: Path) -> None:
    for content in ((site.parent / "table.csv").read_bytes(), str(next(site.rglob("*.png"))).encode()):
        with pytest.raises(AssertionError):
            clean(content)


def test_folders_of_every_format_are_built_without_a_mark(tmp_path: Path, tell: Tell) -> None:
    root = archive(tmp_path / "all")
    stack(root / f"{MARK}-series", change=lambda _, dataset: mark_everything(dataset, NEEDED) and None)
    out, key_table = tmp_path / "out", tmp_path / "keys.csv"
    words = ["shards", "build", "images", f"root={root}", "organ=brain", "--out", out]
    for options in (["subject=folder"], ["subject=auto"], ["label=folder"]):
        tell(2, *words, "name=a", *options)
    tell(0, *words, "name=own", "--on-error", "skip", "--key-table", key_table, "--duplicates", "allow")
    assert MARK in key_table.read_text()
    tell(0, "shards", "inspect", out / "own", "--sheet", tmp_path / "sheets" / "sheet.png")
    tell(0, "shards", "verify", out / "own")
    clean_files(out)
    clean_files(tmp_path / "sheets")


def test_tables_are_built_and_every_error_of_one_names_a_row(site: Path, tell: Tell) -> None:
    out, table = site.parent / "out", site.parent / "table.csv"
    words = ["shards", "build", "images", f"root={site}", "name=own", "--out", out]
    tell(0, *words, f"table={table}", "columns.attributes={years: PatientAge, score: score}")
    for split in read_manifest(out / "own").splits:
        dataset = ShardedDataset(out / "own", split)
        assert set(dataset.read(np.arange(len(dataset))).attributes["years"].tolist()) == {90.0}
    assert b"90 to 90" in tell(0, "shards", "inspect", out / "own", has="class 0 sick")
    clean_files(out)
    for options, reason in (
        (["columns.attributes={x: MRN}"], "number or name of a person"),
        (["columns.attributes={x: birth date}"], "a birth date"),
        (["columns.attributes={x: subject}"], "the subject"),
        (["columns.label=note", "columns.attributes={x: note}"], "attribute x is not a finite number"),
        (["columns.split=note"], "row 2 of the table: the split is none of"),
        (["columns.organ=note"], "the organ is not in the vocabulary"),
        (["columns.path=score"], "row 2 of the table: cannot be opened"),
        (["columns.path=note", "columns.study=subject"], "row 3 of the table: the same file as in row 2"),
        (["columns.label=PatientName", "task=regression"], "the number or name of a person"),
    ):
        tell(2, *words, "--restart", "--overwrite", f"table={table}", *options, has=reason)
    for old, new in (
        (f"{MARK}7.png", f"{MARK}.png"),
        ("fell,1.0", 'fell,"'),
        ("fell,1.0", "fell,1.0,x"),
        ("well", MARK),
    ):
        options = [f"table={edited(site, old, new)}", "columns.attributes={score: score}", "task=binary"]
        tell(2, *words, "--restart", "--overwrite", *options, has="row" if old != "well" else "3 classes")
    path = out / "own" / read_manifest(out / "own").splits["train"].shards[0].file
    path.write_bytes(path.read_bytes()[:-3000])
    tell(2, "shards", "verify", out / "own")


def test_finetuning_and_evaluating_a_table_tells_rows_alone(site: Path, bundle: Path, tell: Tell) -> None:
    table, out = site.parent / "table.csv", site.parent / "out"
    quick = ["--folds", "2", "--repeats", "1", "--set", "head_options.reads=embedding"]
    words = ["finetune", "--model", bundle, "--data", site, "--out", out / "f", "--overwrite", *quick, "--csv"]
    tell(0, *words, table, has="24 different labelled cases of 24, 12 subjects")
    apply = ["predict", out / "f", "--data", site, "--out", out / "p.csv", "--overwrite", "--csv"]
    tell(0, *apply, table, has="these cases: AUC")
    for written in (out / "f" / "predictions.csv", out / "p.csv"):
        keys = [line.partition(",")[0] for line in written.read_text().splitlines()[1:]]
        assert len(keys) == COUNT and all(re.fullmatch(r"row \d+", key) for key in keys)
    bare = ["predict", out / "f", "--data", site, "--out", out / "q.csv"]
    tell(0, *bare)
    assert all(line.startswith("file ") for line in (out / "q.csv").read_text().splitlines()[1:])
    features = ["embed", bundle, "--data", site, "--out", out / "f.npz", "--overwrite", "--csv"]
    tell(0, *features, table)
    with np.load(out / "f.npz") as found:
        clean("".join(found["key"].tolist()).encode())
    split_by_patient(table, out.parent / "split.csv")
    tell(0, "evaluate", bundle, "--data", site, "--csv", out.parent / "split.csv", "--out", out / "e")
    tell(2, "evaluate", bundle, "--data", site, "--csv", table, "--out", out / "x", has="there is no test split")
    clean_files(out)
    for old, new, reason in (
        (f"{MARK}7.png", f"{MARK}.png", "row 9 of the table: cannot be opened: No such file"),
        (f"{MARK}7.png", f"{MARK}7.dcm", "row 9 of the table: 1 of its 1 DICOM files cannot be used: cannot be opened"),
        (f"19870605/{MARK}7.png", f"19870605/{MARK}6.png", "row 9 of the table: the same file as in row 8"),
        (f",{MARK}3,", ",,", "row 8 of the table: the subject is empty"),
        ("file,label", "file,lable", "no column 'label'"),
        ("file,label", f"file,{MARK}", "no column 'label'"),
        ("fell,1.0", 'fell,"', "is broken"),
        ("fell,1.0", "fell,1.0,x", "cells, the header 9"),
    ):
        tell(2, *words, edited(site, old, new), has=reason)
        if "'label'" not in reason:  # new images need none
            for command in (apply, features):
                tell(2, *command, edited(site, old, new), has=reason)
        tell(2, "evaluate", bundle, "--data", site, "--csv", edited(site, old, new), "--out", out / "x", has=reason)
    lines = table.read_text().splitlines()
    splits = ["train", "test", *("train", "test") * (COUNT // 2 - 1)]
    crossing = [f"{lines[0]},split", *(f"{line},{split}" for line, split in zip(lines[1:], splits, strict=True))]
    (site.parent / "crossing.csv").write_text("\n".join(crossing))
    tell(
        2,
        *words,
        site.parent / "crossing.csv",
        has="in split train and row 3 of the table in split test are of one subject",
    )
    path = next(site.rglob(f"{MARK}9.png"))
    whole = path.read_bytes()
    for content in (whole[:90], b"", MARK.encode(), whole[:33] + MARK.encode() + whole[33:]):
        path.write_bytes(content)
        for command in (words, apply, features):
            tell(2, *command, table, has="row 11 of the table: the picture cannot be decoded")
    PIL.Image.fromarray(np.zeros((5, 5), np.uint8)).save(path)
    tell(0, *words, table, has="24 different")  # of another size: a case like any other
    assert not (out / "x").exists()
    clean_files(out)


def split_by_patient(table: Path, out: Path) -> None:
    """The table with a column split in which patients are whole."""
    head, *lines = table.read_text().splitlines()
    rows = [f"{line},{('train', 'test')[number // 2 % 2]}" for number, line in enumerate(lines)]
    out.write_text("\n".join([f"{head},split", *rows]) + "\n")


def foreign(folder: Path, *, age: str = "97") -> Path:
    """Tars whose keys and members name people."""
    folder.mkdir()
    for split, numbers in (("train", range(16)), ("test", range(16, COUNT))):
        members = []
        for number in numbers:
            facts = f'{{"patient": "{MARK}{number}", "PatientAge": {age}, "birth": 19870605, "note": "{MARK}"}}'
            key = f"{MARK}^Doe/{MARK}{number}"
            members += [(f"{key}.png", picture(pixels(number), "PNG")), (f"{key}.json", facts.encode())]
            members.append((f"{key}.cls", b"%d.0" % (number % 2)))
        handmade(folder / f"{split}-0.tar", members)
    card = {"name": "les", "title": "t", "organ": "skin", "modality": "dermatoscopy", "dimensionality": "planar"}
    card |= {"task": "binary", "licence": "-", "homepage": "", "source_version": "1", "split_rule": "by patient"}
    content = {"card": card | {"classes": {0: "a", 1: "b"}, "source_checksum": {}}, "subject": "json:patient"}
    (folder / "card.yaml").write_text(json.dumps(content | {"attributes": {"years": "json:PatientAge"}}))
    return folder


def test_tars_of_others_are_indexed_and_used_without_a_mark(tmp_path: Path, bundle: Path, tell: Tell) -> None:
    folder, out = foreign(tmp_path / "tars"), tmp_path / "out"
    words = ["shards", "index", folder, "--config", folder / "card.yaml"]
    for option, reason in (
        ("attributes={x: json:note}", "is not a finite number"),
        ("attributes={x: json:birth}", "a birth date"),
        ("attributes={x: json:patient.id}", "number or name of a person"),
        ("label=json:note", "is not a finite number"),
        ("subject=json:nobody", "expected a text"),
        ("images={npy: image}", "no image"),
    ):
        tell(2, *words, option, has=reason)
    tell(0, *words)
    assert ShardedDataset(folder, "train").read(np.arange(3)).attributes["years"].tolist() == [90.0] * 3
    clean((folder / "manifest.json").read_bytes())
    tell(0, "shards", "inspect", folder, "--sheet", tmp_path / "sheets" / "sheet.png", has="90 to 90")
    tell(0, "shards", "verify", folder)
    tell(0, "finetune", "--model", bundle, "--data", folder, "--out", out / "f", has="8 train, 4 test")
    tell(0, "predict", out / "f", "--data", folder, "--out", out / "p.csv", has="24 cases predicted")
    tell(0, "predict", out / "f", "--data", folder, "--split", "test", "--out", out / "t.csv", has="these cases")
    tell(0, "embed", bundle, "--data", folder, "--out", out / "e.npz")
    tell(0, "evaluate", bundle, "--data", folder, "--out", out / "e")
    clean_files(out)
    clean_files(tmp_path / "sheets")
    content = bytearray((folder / "test-0.tar").read_bytes())
    with tarfile.open(folder / "test-0.tar") as tar:
        member = next(member for member in tar if member.name.endswith("png"))
    content[member.offset_data + 60] ^= 1
    (folder / "test-0.tar").write_bytes(content)
    tell(2, "shards", "verify", folder, has="sample number 0: damaged")
    tell(2, "finetune", "--model", bundle, "--data", folder, "--out", out / "g", has="sample number 0")
    tell(2, "predict", out / "f", "--data", folder, "--split", "test", "--out", out / "x.csv", has="sample number 0")
    tell(2, "embed", bundle, "--data", folder, "--out", out / "x.npz", has="sample number 0")
    assert not (out / "x.csv").exists() and not (out / "x.npz").exists()


def test_a_subject_of_two_splits_of_foreign_tars_is_not_named(tmp_path: Path, tell: Tell) -> None:
    folder = foreign(tmp_path / "tars")
    for name, content in (("train-1", f'{{"patient": "{MARK}20"}}'), ("train-2", f'{{"patient": "{MARK}1"}}')):
        members = [
            (f"{MARK}.png", picture(pixels(99), "PNG")),
            (f"{MARK}.json", content.encode()),
            (f"{MARK}.cls", b"0"),
        ]
        handmade(folder / f"{name}.tar", members)
    tell(2, "shards", "index", folder, "--config", folder / "card.yaml", has="sample number 0")
