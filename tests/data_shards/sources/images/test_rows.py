"""Studies and labels from tables: what rows mean together, and what contradicts itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_shards.sources.images.source import Images
from data_shards.support.errors import DataError
from data_shards.vocabulary import Modality, Organ, Task
from tests.data_shards.sources.images.dicom.make import header, save, stack
from tests.data_shards.sources.images.make import images, nifti, reference, stored_as, table, tree

PICTURES = [f"p{number}.png" for number in range(6)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tree(tmp_path / "root", PICTURES)


def source(root: Path, rows: Sequence[Sequence[object]], **options: Any) -> Images:
    return images(root, table=table(root.parent / "t.csv", rows), **options)


def labels(root: Path, cells: Sequence[object], **options: Any) -> tuple[Images, list[Any]]:
    """The source of one picture for each label, and the labels it gives."""
    tree(root, [f"p{number}.png" for number in range(len(cells))])
    made = source(
        root, [("path", "label"), *((f"p{number}.png", cell) for number, cell in enumerate(cells))], **options
    )
    return made, [None if sample.label is None else sample.label.tolist() for sample in made]


def refusal(root: Path, rows: Sequence[Sequence[object]], **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        source(root, rows, **options)
    assert "\n" not in str(caught.value) and "DoeJane" not in str(caught.value)
    return str(caught.value)


def test_rows_are_samples_in_the_order_of_the_table(root: Path):
    made = source(root, [("path",), ("p3.png",), ("p0.png",), ("p5.png",)])
    assert [int(sample.image.pixels[0, 0, 0]) for sample in made] == [3, 0, 5]
    assert [made.name_of(position) for position in range(3)] == [f"row {number} of the table" for number in (2, 3, 4)]


def test_words_are_classes_numbered_in_sorted_order(root: Path):
    made, found = labels(root, ["glioma", "benign", "glioma", "cyst"])
    assert found == [[2], [0], [2], [1]] and made.card.classes == {0: "benign", 1: "cyst", 2: "glioma"}
    assert made.card.task == "multiclass" and made.sample(0).label.dtype == np.int64  # type: ignore[union-attr]


def test_integers_are_taken_as_they_are(root: Path):
    made, found = labels(root, [4, 2, 2])
    assert found == [[4], [2], [2]] and made.card.classes == {2: "2", 4: "4"} and made.card.task == "binary"


def test_classes_of_the_user_number_words_and_numbers_alike(root: Path):
    made, found = labels(root, ["sick", "0", "well"], classes={0: "well", 1: "sick"})
    assert found == [[1], [0], [0]] and made.card.classes == {0: "well", 1: "sick"}


def test_an_empty_label_is_no_label(root: Path):
    assert labels(root, ["a", "", "b"])[1] == [[0], None, [1]]


def test_numbers_of_a_regression_stay_what_they_are(root: Path):
    made, found = labels(root, ["1.25", "-3e2", "7"], task="regression")
    assert found == [[1.25], [-300.0], [7.0]] and made.card.task == "regression" and made.card.classes == {}
    assert made.sample(0).task is Task.regression


def test_several_columns_are_a_multilabel_and_name_its_classes(root: Path):
    rows = [("path", "edema", "mass"), ("p0.png", 1, 0), ("p1.png", 0, 1), ("p2.png", "", "")]
    made = source(root, rows, columns={"label": ["edema", "mass"]})
    assert [None if each.label is None else each.label.tolist() for each in made] == [[1, 0], [0, 1], None]
    assert made.card.classes == {0: "edema", 1: "mass"} and made.card.task == "multilabel"


def test_several_columns_of_a_regression_are_a_vector(root: Path):
    rows = [("path", "x", "y"), ("p0.png", 0.5, 2), ("p1.png", -1, 3)]
    made = source(root, rows, columns={"label": ["x", "y"]}, task="regression")
    assert made.sample(1).label.tolist() == [-1.0, 3.0]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "cells, options, message",
    [
        (["a", "DoeJane"], {"classes": {0: "a"}}, "row 3 of the table: the label is none of the 1 classes"),
        (["1", "DoeJane"], {"task": "regression"}, "row 3 of the table: the label is not a finite number"),
        (["1", "inf"], {"task": "regression"}, "row 3 of the table: the label is not a finite number"),
        (["0", "2"], {"task": "multilabel"}, "row 3 of the table: the label says neither yes nor no"),
        (["1", "DoeJane"], {}, "1 of 2 labels are numbers, the others are words"),
        (["x" * 61, "y"], {}, "not a word of at most 60 printable characters"),
        ([f"DoeJane{number}" for number in range(25)], {}, "25 different labels in 25 studies: this looks like ident"),
    ],
)
def test_labels_that_fit_nothing_are_refused(root: Path, cells: list[str], options: dict[str, Any], message: str):
    tree(root, [f"p{number}.png" for number in range(len(cells))])
    rows = [("path", "label"), *((f"p{number}.png", cell) for number, cell in enumerate(cells))]
    assert message in refusal(root, rows, **options)


def test_label_columns_that_are_half_empty_are_refused(root: Path):
    rows = [("path", "a", "b"), ("p0.png", 1, 0), ("p1.png", 1, "")]
    assert "row 3 of the table: some label columns say nothing and others do" in refusal(
        root, rows, columns={"label": ["a", "b"]}
    )


def test_several_label_columns_of_one_class_are_refused(root: Path):
    rows = [("path", "a", "b"), ("p0.png", 1, 0)]
    assert "2 label columns; task multiclass has one" in refusal(
        root, rows, columns={"label": ["a", "b"]}, task="multiclass"
    )


def test_rows_of_a_study_are_the_images_of_one_sample_with_its_mask(tmp_path: Path):
    root = tmp_path / "root"
    root.mkdir()
    data, affine = stored_as(reference(), "RAS")
    nifti(root / "t1.nii", data, affine)
    nifti(root / "t2.nii", *stored_as(reference() * 2, "LPI"))
    nifti(root / "seg.nii", *stored_as((reference() % 3).astype(np.float32), "ASL"))
    rows = [
        ("path", "study", "image", "modality", "subject", "label"),
        ("t1.nii", "s1", "t1w", "mri", "p1", "x"),
        ("t2.nii", "s1", "t2w", "MRI", "p1", "x"),
        ("seg.nii", "s1", "mask", "", "p1", "x"),
    ]
    (sample,) = source(root, rows)
    assert list(sample.images) == ["t1w", "t2w", "mask"]
    np.testing.assert_array_equal(sample.images["t2w"].pixels[0], reference() * 2)
    np.testing.assert_array_equal(sample.images["mask"].pixels[0], reference() % 3)
    assert sample.images["mask"].pixels.dtype == np.uint8 and sample.images["t1w"].modality is Modality.mri


@pytest.mark.parametrize("values", [[0.5], [256.0], [-1.0], [300.0, 1.0]])
def test_a_mask_whose_values_are_no_class_ids_is_refused(tmp_path: Path, values: list[float], recwarn: Any):
    root = tree(tmp_path / "root", ["p.png"])
    np.save(root / "m.npy", np.resize(np.array(values, np.float32), (4, 4)))
    rows = [("path", "study", "image"), ("p.png", "s", "image"), ("m.npy", "s", "mask")]
    with pytest.raises(DataError, match="row 3 of the table: a mask has one channel of whole numbers from 0 to 255"):
        source(root, rows).sample(0)
    assert not recwarn.list


def test_a_mask_on_another_grid_is_refused(tmp_path: Path):
    root = tree(tmp_path / "root", ["p.png"])
    np.save(root / "m.npy", np.zeros((4, 5), np.uint8))
    rows = [("path", "study", "image"), ("p.png", "s", "image"), ("m.npy", "s", "mask")]
    with pytest.raises(DataError, match="row 2 of the table: .* differ in grid"):
        source(root, rows).sample(0)


HEAD = ("path", "study", "image", "subject", "split", "organ", "label")
ONE = ("p0.png", "s", "a", "x", "train", "brain", "1")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"image": "a"}, "row 3 of the table: its study has two images of this name"),
        ({"image": "Doe-Jane"}, "row 3 of the table: the name of the image is not an ASCII identifier"),
        ({"subject": "DoeJane"}, "row 3 of the table: another subject than in row 2"),
        ({"split": "test"}, "row 3 of the table: another split than in row 2"),
        ({"organ": "chest"}, "row 3 of the table: another organ than in row 2"),
        ({"label": "0"}, "row 3 of the table: another label or attribute than in row 2"),
        ({"study": ""}, "row 3 of the table: the study is empty"),
        ({"path": "p0.png"}, "row 3 of the table: the same file as in row 2"),
        ({"path": "./p0.png"}, "row 3 of the table: the same file as in row 2"),
        ({"path": ""}, "row 3 of the table: the path is empty"),
        ({"study": "t", "subject": ""}, "row 3 of the table: the subject is empty"),
        ({"study": "t", "split": "DoeJane"}, "row 3 of the table: the split is none of train, val, test"),
        ({"study": "t", "organ": "DoeJane"}, "row 3 of the table: the organ is not in the vocabulary"),
    ],
)
def test_rows_that_contradict_each_other_are_refused(root: Path, change: dict[str, str], message: str):
    second = dict(zip(HEAD, ("p1.png", "s", "b", "x", "train", "brain", "1"), strict=True)) | change
    assert message in refusal(root, [HEAD, ONE, tuple(second.values())])


@pytest.mark.parametrize(
    "cell, split", [("train", "train"), ("Training", "train"), ("VALID", "val"), ("testing", "test")]
)
def test_the_usual_names_of_splits_are_read(root: Path, cell: str, split: str):
    made = source(root, [("path", "split"), ("p0.png", cell)])
    assert made.sample(0).split == split and made.card.split_rule.startswith("given by the table")


def test_a_split_column_can_be_left_out_of_account(root: Path):
    made = source(
        root, [("path", "split"), ("p0.png", "test")], split="shares", shares={"train": 1, "val": 0, "test": 0}
    )
    assert made.sample(0).split == "train"


def test_organ_and_modality_of_a_row_count_before_those_of_the_set(root: Path):
    rows = [("path", "organ", "modality"), ("p0.png", "Knee", "ct"), ("p1.png", "", "")]
    first, second = source(root, rows, organ="brain", modality="mri")
    assert (first.organ, first.image.modality) == (Organ.knee, Modality.ct)
    assert (second.organ, second.image.modality) == (Organ.brain, Modality.mri)


def test_attributes_are_numbers_and_empty_cells_are_left_out(root: Path):
    rows = [("path", "w", "months"), ("p0.png", "61.5", ""), ("p1.png", "1e2", "-3")]
    first, second = source(root, rows, columns={"attributes": {"weight_kg": "w", "months": "months"}})
    assert first.attributes == {"weight_kg": 61.5} and second.attributes == {"weight_kg": 100.0, "months": -3.0}


@pytest.mark.parametrize("cell", ["DoeJane", "1_0", "inf", "1,5x"])
def test_an_attribute_that_is_no_number_is_refused(root: Path, cell: str):
    rows = [("path", "w"), ("p0.png", "3"), ("p1.png", f'"{cell}"')]
    message = refusal(root, rows, columns={"attributes": {"weight_kg": "w"}})
    assert "row 3 of the table: attribute weight_kg is not a finite number" in message and cell not in message


@pytest.mark.parametrize(
    "name, cell, expected",
    [
        ("age", "89", 89),
        ("age", "90", 90),
        ("age_years", "97.5", 90),
        ("age_at_scan", "101", 90),
        ("Age", "101", 90),
        ("patient_age", "101", 90),
        ("age_months", "500", 500),
        ("age_months", "1200", 1080),
        ("age_days", "10000", 10000),
        ("age_days", "36500", 32872.5),
        ("age_months", "1075", 1080),
        ("PatientAge", "95", 90),
        ("patientAgeYears", "091Y", 90),
        ("AGE", "90+", 90),
        ("age", "89.5", 90),
        ("age_at_12_months", "95", 90),
        ("age_weeks", "5000", 4696.071428571428),
        ("dosage", "300", 300),
        ("stage", "300", 300),
    ],
)
def test_ages_above_89_years_become_90_in_whatever_unit(root: Path, name: str, cell: str, expected: float):
    (sample,) = source(root, [("path", "x"), ("p0.png", cell)], columns={"attributes": {name: "x"}})
    assert sample.attributes == {name: pytest.approx(expected)}


@pytest.mark.parametrize(
    "path", ["/etc/hosts", "../t.csv", "a/../../t.csv", "C:\\x.png", "C:x.png", "..\\t.csv", "\\\\h\\x"]
)
def test_a_path_that_leads_out_of_the_root_is_refused(root: Path, path: str):
    assert "row 3 of the table: the path is absolute or has '..'" in refusal(root, [("path",), ("p0.png",), (path,)])


def test_a_link_that_leads_out_of_the_root_is_refused(root: Path):
    (root / "link.png").symlink_to(root.parent / "t.csv")
    (root / "away").symlink_to(root.parent)
    for path in ("link.png", "away/t.csv"):
        assert "row 2 of the table: the path is a link that leads out of the root" in refusal(
            root, [("path",), (path,)]
        )


def test_a_link_that_stays_inside_is_followed(root: Path):
    (root / "link.png").symlink_to(root / "p4.png")
    (sample,) = source(root, [("path",), ("link.png",)])
    assert sample.image.pixels[0, 0, 0] == 4


@pytest.mark.parametrize("path", ["none.png", "DoeJane" * 40 + ".png", "p0.png/x.png", "d" * 5000])
def test_a_file_that_is_not_there_is_found_when_its_sample_is_read(root: Path, path: str):
    made = source(root, [("path",), ("p0.png",), (path,)])
    assert made.sample(0).image.pixels.shape == (1, 4, 4)
    with pytest.raises(DataError, match="^row 3 of the table: cannot be opened") as caught:
        made.sample(1)
    assert path not in str(caught.value)


def test_backslashes_are_slashes(tmp_path: Path):
    root = tree(tmp_path / "root", {"a/b.png": 9})
    assert source(root, [("path",), ("a\\b.png",)]).sample(0).image.pixels[0, 0, 0] == 9


def test_a_folder_in_the_table_is_its_dicom_series(tmp_path: Path):
    root = tree(tmp_path / "root", ["p.png"])
    stack(root / "scan", PatientID="P7", PatientAge="093Y")
    (root / "empty").mkdir()
    made = source(root, [("path", "subject"), ("scan", "a"), ("empty", "b")])
    assert made.sample(0).image.pixels.shape == (1, 5, 6, 7) and made.sample(0).attributes == {"age_years": 90.0}
    with pytest.raises(DataError, match="row 3 of the table: 0 DICOM images in place of one"):
        made.sample(1)


def test_two_series_in_one_folder_are_refused(tmp_path: Path):
    root = tmp_path / "root"
    stack(root / "scan")
    save(header(np.zeros((9, 9), np.uint8), SeriesInstanceUID="1.9"), root / "scan" / "x.dcm")
    with pytest.raises(DataError, match="row 2 of the table: 2 DICOM images in place of one"):
        source(root, [("path",), ("scan",)]).sample(0)


def test_frames_of_several_images_are_refused(tmp_path: Path):
    root = tree(tmp_path / "root", ["p.png"])
    nifti(root / "v.nii", np.zeros((4, 4, 2, 3), np.uint8), np.eye(4))
    rows = [("path", "study", "image"), ("v.nii", "s", "a"), ("p.png", "s", "b")]
    assert "row 2 of the table: frames: all is for studies of one image" in refusal(root, rows, frames="all")


def test_a_subject_of_two_splits_is_refused_by_its_rows_before_anything_is_read(root: Path):
    rows = [("path", "subject", "split"), ("p0.png", "DoeJane", "train"), ("none.png", "DoeJane", "val")]
    assert refusal(root, rows) == (
        "row 2 of the table in split train and row 3 of the table in split val are of one subject; "
        "a subject is in one split"
    )
