"""Marks are planted in names, cells and headers; none comes out in samples, cards, messages or shards."""

from __future__ import annotations

import io
import logging
import pickle
import tarfile
import traceback
import warnings
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import PIL.Image
import PIL.PngImagePlugin
import pytest

from data_shards.sources.images.source import Images
from data_shards.support.errors import DataError
from data_shards.writing.writer import write_dataset
from tests.data_shards.sources.images.dicom.make import header, save, stack
from tests.data_shards.sources.images.make import images, table

MARK = "ZyXcanary"
MARKS = [mark.encode() for mark in (MARK, MARK.lower(), MARK.upper(), "19870605")]


def marked_picture(path: Path, form: str, value: int) -> None:
    """A picture whose every text field is a mark."""
    info = PIL.PngImagePlugin.PngInfo()
    for kind in ("Author", MARK):
        info.add_text(kind, MARK)
        info.add_text(kind, MARK, zip=True)
        info.add_itxt(kind, MARK, lang="en", tkey=MARK)
    exif = PIL.Image.Exif()
    for tag in (270, 271, 305, 315, 33432):  # description, maker, software, artist, copyright
        exif[tag] = MARK
    pixels = (np.arange(64, dtype=np.uint8) + value).reshape(8, 8)
    options: dict[str, Any] = {"PNG": {"pnginfo": info}, "JPEG": {"comment": MARK.encode()}, "TIFF": {}}[form]
    PIL.Image.fromarray(pixels).save(path, form, exif=exif, **options)


def marked_nifti(path: Path, value: int) -> None:
    image = nibabel.Nifti1Image(np.full((3, 4, 5), value, np.int16), np.eye(4))
    for name, size in (("descrip", 80), ("aux_file", 24), ("db_name", 18), ("intent_name", 16), ("data_type", 10)):
        image.header[name] = MARK.encode()[:size]
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", MARK.encode()))
    nibabel.save(image, path)


def archive(root: Path) -> Path:
    """Images and rubbish of every kind, all under marked names and with marked text inside."""
    folder = root / f"{MARK}^Doe" / "19870605"
    folder.mkdir(parents=True)
    for number, form in enumerate(("PNG", "JPEG", "TIFF")):
        marked_picture(folder / f"{MARK}{number}.{form.lower()}", form, number)
        content = (folder / f"{MARK}{number}.{form.lower()}").read_bytes()
        (folder / f"{MARK}-cut{number}.{form.lower()}").write_bytes(content[: len(content) // 3])
        (folder / f"{MARK}-text{number}.{form.lower()}").write_bytes(content[:8] + MARK.encode() * 9)
    for name in ("a.nii", "b.nii.gz"):
        marked_nifti(folder / f"{MARK}{name}", len(name))
    whole = (folder / f"{MARK}a.nii").read_bytes()
    for number, (place, change) in enumerate(
        ((70, b"\x03\0"), (40, b"\x09\0"), (108, b"\0\0\0\0"), (280, b"\0\0\xc0\x7f"))
    ):
        damaged = whole[:place] + change + whole[place + len(change) :]
        (folder / f"{MARK}-bad{number}.nii").write_bytes(damaged)
    np.save(folder / f"{MARK}.npy", np.arange(12, dtype=np.uint8).reshape(3, 4))
    np.save(folder / f"{MARK}-named.npy", np.zeros((2, 2), [(MARK, "u1")]))
    np.save(folder / f"{MARK}-words.npy", np.array([[MARK]]))
    (folder / f"{MARK}-header.npy").write_bytes(b"\x93NUMPY\1\0\x20\0" + f"{{'{MARK}': 3}}".ljust(32).encode())
    stack(folder / "scan", PatientID=MARK, PatientName=MARK, PatientBirthDate="19870605", StudyDescription=MARK)
    save(header(np.zeros((3, 4), np.uint8), PatientID=MARK, SeriesInstanceUID="1.7"), folder / f"{MARK}.ima")
    cut = save(header(np.zeros((3, 4), np.uint8), PatientID=MARK, SeriesInstanceUID="1.8"), folder / f"{MARK}-cut.dcm")
    cut.write_bytes(cut.read_bytes()[:-9])
    (folder / f"{MARK}.txt").write_text(MARK)
    (folder / f".{MARK}").write_text(MARK)
    (folder / f"{MARK}.gz").write_bytes(b"\x1f\x8b\x08\x08" + MARK.encode() * 30)
    (folder / f"{MARK}-link.png").symlink_to(root.parent / MARK)
    (root / f"{MARK}.tar").write_bytes(b"")
    with tarfile.open(root / f"{MARK}.tar", "w") as file:
        file.addfile(tarfile.TarInfo(MARK), io.BytesIO())
    return root


def told(source: Images, least: int) -> list[bytes]:
    """Everything that a source says; origin() is for the owner alone and so left out."""
    said: list[object] = [source.card, source.card.model_dump_json(), *source.skipped, *source.warnings]
    read, shown = 0, []
    for position in range(len(source)):
        said.append(source.name_of(position))
        try:
            sample = source.sample(position)
        except DataError as error:
            said += [error, repr(error), *error.args, *traceback.format_exception_only(error)]
            shown.append(error.__cause__ is not None or not error.__suppress_context__)
            continue
        said += [sample, vars(sample), pickle.dumps(sample), sample.key, sample.subject]
        read += 1
    assert not any(shown), "a traceback would show the text of the library"
    assert read >= least, "most of the marked archive is readable"
    said += [repr(study) for study in source._studies]
    return [thing if isinstance(thing, bytes) else str(thing).encode() for thing in said]


def assert_clean(said: list[bytes]) -> None:
    for thing in said:
        assert not [mark for mark in MARKS if mark in thing], thing[:500]


@pytest.fixture
def marked(tmp_path: Path) -> Path:
    return archive(tmp_path / "root")


def test_nothing_that_a_source_says_has_a_mark(
    marked: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
):
    capfd.readouterr()
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        said = told(images(marked, subject="folder"), 8)
        said += told(images(marked), 8)
    said += [str(warning.message).encode() for warning in warned]
    assert_clean([*said, caplog.text.encode(), *(text.encode() for text in capfd.readouterr())])


def test_the_marks_are_there_and_would_be_found(marked: Path):
    source = images(marked)
    assert MARK in str(source.origin(0)) and MARK in images(marked, show_paths=True).name_of(0)
    assert MARK in PIL.Image.open(next(marked.rglob(f"{MARK}0.png"))).text["Author"]  # type: ignore[attr-defined]
    with pytest.raises(AssertionError):
        assert_clean([b"x" + MARK.encode()])


def test_no_byte_of_the_shards_has_a_mark(marked: Path, tmp_path: Path):
    write_dataset(images(marked), tmp_path / "out", skip_errors=True)
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} >= {".tar", ".json", ".csv"}
    assert_clean([path.read_bytes() for path in files])
    assert_clean([path.name.encode() for path in files])


def test_cells_of_a_table_never_come_out(marked: Path, tmp_path: Path):
    paths = sorted(path.relative_to(marked).as_posix() for path in marked.rglob("*.*") if path.is_file())
    paths = [path for path in paths if "scan" not in path and "-link" not in path]
    rows = [
        ("path", "subject", "study", "note", "age", "label"),
        *((path, MARK, f"{MARK}{number}", MARK, 95, number % 2) for number, path in enumerate(paths)),
    ]
    made = images(marked, table=table(tmp_path / "t.csv", rows), columns={"attributes": {"age_years": "age"}})
    assert_clean(told(made, 7))
    write_dataset(made, tmp_path / "out", skip_errors=True, duplicates="allow")
    assert_clean([path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()])


@pytest.mark.parametrize("column", ["path", "subject", "study", "image", "split", "organ", "modality", "age", "score"])
@pytest.mark.parametrize("value", [f"{MARK} Doe", f"../{MARK}", f"{MARK}\0", f'"{MARK}', f"{MARK}é", ""])
def test_no_message_about_a_bad_cell_has_its_text(tmp_path: Path, column: str, value: str):
    root = tmp_path / "root"
    root.mkdir()
    marked_picture(root / "a.png", "PNG", 1)
    marked_picture(root / "b.png", "PNG", 2)
    good = {"path": "a.png", "subject": "p", "study": "s", "image": "one", "split": "train", "organ": "brain"}
    good |= {"modality": "mri", "age": "3", "score": "1.5"}
    bad = good | {"path": "b.png", "image": "two"} | {column: value}
    path = table(tmp_path / "t.csv", [tuple(good), tuple(good.values()), tuple(bad.values())])
    path.write_bytes(path.read_text().encode("latin-1"))
    options: dict[str, Any] = {"columns": {"label": "score", "attributes": {"age": "age"}}, "task": "regression"}
    try:
        made = images(root, table=path, **options)
        said = [str(vars(sample)).encode() for sample in made]
    except DataError as error:
        said = [str(error).encode()]
    assert_clean(said)


def test_broken_headers_of_tables_never_come_out_unless_a_name_is_close(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(b"")
    for text in (f"{MARK},b\nx,y\n", f'"{MARK}\n', f"path,{MARK}\n{MARK}\n"):
        (tmp_path / "t.csv").write_text(text)
        with pytest.raises(DataError) as caught:
            images(tmp_path, table=tmp_path / "t.csv")
        assert_clean([str(caught.value).encode()])
