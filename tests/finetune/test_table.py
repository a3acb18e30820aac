from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_shards.support.errors import DataError
from data_shards.vocabulary import Modality, Organ, Task
from finetune.cases import Cases
from finetune.origin import remark
from finetune.readers import read_cases
from tests.data_shards.sources.images.make import images


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight grey images: PNG, JPEG and NPY; ``table.csv`` names four subjects of two images each."""
    generator = np.random.default_rng(0)
    lines = ["file,label,subject"]
    for index in range(8):
        pixels = generator.integers(0, 256, size=(10, 12), dtype=np.uint8)
        name = f"{index}.{('png', 'jpg', 'npy', 'PNG')[index % 4]}"
        if name.endswith("npy"):
            np.save(tmp_path / name, pixels)
        else:
            Image.fromarray(pixels).save(tmp_path / name)
        lines.append(f"{name},{('benign', 'malignant')[index // 2 % 2]},patient-{index // 2}")
    (tmp_path / "table.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def pixels(part: Cases) -> list[np.ndarray]:
    """The images of cases of one image each."""
    return [part.pictures.study(int(row)).images["image"].pixels for row in part.rows]


def _edit(folder: Path, old: str, new: str) -> None:
    table = folder / "table.csv"
    content = table.read_text()
    assert old in content
    table.write_text(content.replace(old, new, 1))


def test_images_labels_and_subjects_are_read(folder: Path) -> None:
    splits = read_cases(folder, csv=folder / "table.csv", organ=Organ.breast, modality=Modality.ultrasound)
    whole = pixels(splits["train"])
    assert set(splits) == {"train"} and len(whole) == 8 and whole[0].shape == (1, 10, 12)
    train = splits["train"]
    assert (train.task, dict(train.classes)) == (Task.binary, {0: "benign", 1: "malignant"})
    assert not train.official and remark(train.note) == "your own images: table.csv"
    assert {(part.organ, part.modality) for part in splits.values()} == {(Organ.breast, Modality.ultrasound)}
    shown = read_cases(folder, csv=folder / "table.csv", show_paths=True)
    for split, part in shown.items():
        for key, number, image in zip(part.keys, splits[split].keys, pixels(part), strict=True):
            assert number == f"row {int(key[0]) + 2}"
            if key.endswith("npy"):
                np.testing.assert_array_equal(image[0], np.load(folder / key))


def test_without_a_split_column_all_is_given_out_for_the_caller_to_cut(folder: Path) -> None:
    lines = ["file,label,subject"]
    for index in range(32):
        np.save(folder / f"many-{index}.npy", np.full((4, 4), index, np.uint8))
        lines.append(f"many-{index}.npy,{index // 2 % 2},{index // 2}")
    (folder / "many.csv").write_text("\n".join(lines))
    splits = read_cases(folder, csv=folder / "many.csv")
    assert set(splits) == {"train"} and len(splits["train"]) == 32
    pairs = splits["train"].subjects.reshape(16, 2)
    assert (pairs[:, 0] == pairs[:, 1]).all() and len(np.unique(pairs)) == 16


@pytest.mark.parametrize("subjects", [1, 2, 3])
def test_a_table_of_few_subjects_is_read_as_it_is(folder: Path, subjects: int) -> None:
    table = folder / "few.csv"
    files = [f"{i}.{('png', 'jpg', 'npy', 'PNG')[i % 4]}" for i in range(8)]
    table.write_text(
        "file,label,subject\n" + "".join(f"{f},{i % 2},{i // 2 % subjects}\n" for i, f in enumerate(files))
    )
    (part,) = read_cases(folder, csv=table).values()
    assert len(part) == 8 and len(np.unique(part.subjects)) == subjects


def test_a_split_column_is_obeyed_and_integer_labels_are_ordered_by_value(folder: Path) -> None:
    lines = ["file,label,split"]
    lines += [
        f"{i}.{('png', 'jpg', 'npy', 'PNG')[i % 4]},{(10, 9, 2)[i % 3]},{'train' if i < 6 else 'val'}" for i in range(8)
    ]
    (folder / "split.csv").write_text("\ufeff" + "\n".join(lines))  # as spreadsheet programs save it
    splits = read_cases(folder, csv=folder / "split.csv")
    assert {split: len(part) for split, part in splits.items()} == {"train": 6, "val": 2}
    assert dict(splits["train"].classes) == {0: "2", 1: "9", 2: "10"}
    assert splits["train"].labels[:, 0].tolist() == [2, 1, 0, 2, 1, 0]


@pytest.mark.parametrize(
    ("cells", "classes"),
    [
        ("1 2 3", {0: "1", 1: "2", 2: "3"}),
        ("-1 0 4", {0: "-1", 1: "0", 2: "4"}),
        ("6.0 10.0 9.0", {0: "6", 1: "9", 2: "10"}),
        ("0.0 0.5 1.0", {0: "0", 1: "0.5", 2: "1"}),
        ("yes no YES", {0: "no", 1: "YES"}),
        ("NA benign sick", {0: "benign", 1: "sick"}),
    ],
)
def test_labels_are_read_as_by_every_other_command(folder: Path, cells: str, classes: dict[int, str]) -> None:
    files = [f"{i}.{('png', 'jpg', 'npy', 'PNG')[i % 4]}" for i in range(6)]
    rows = [f"{file},{cells.split()[i % 3]},{'train' if i < 3 else 'Test'}" for i, file in enumerate(files)]
    (folder / "t.csv").write_text("\n".join(["file,label,split", *rows]))
    splits = read_cases(folder, csv=folder / "t.csv")
    found = images(folder, name="t", table=folder / "t.csv", label="auto")
    assert dict(splits["train"].classes) == classes
    names = found.card.classes
    told = [names[int(sample.label[0])] for sample in found if sample.label is not None]
    assert told == [classes[int(label)] for part in splits.values() for label in part.labels[:, 0]]
    assert [warning for warning in splits["train"].warnings if warning not in found.warnings] == (
        ["2 of 6 rows have no label and are left out: 2, 5"] if "NA" in cells else []
    )


def test_a_class_may_be_called_like_a_missing_value(folder: Path) -> None:
    (folder / "t.csv").write_text("file,label,split\n0.png,None,train\n1.jpg,mild,train\n2.npy,NA,train\n")
    (part,) = read_cases(folder, csv=folder / "t.csv", missing=["na"]).values()
    assert dict(part.classes) == {0: "None", 1: "mild"} and len(part) == 2
    assert any("a class is called 'None'" in warning for warning in part.warnings)


def test_other_columns_are_allowed_and_one_that_names_patients_is_pointed_out(folder: Path) -> None:
    (folder / "t.csv").write_text(";file;label;PatientID;split\n0;0.png;a;7;train\n1;1.jpg;b;8;train\n")
    (part,) = read_cases(folder, csv=folder / "t.csv").values()
    assert len(part) == 2 and part.subjects is None
    assert [warning.partition(",")[0] for warning in part.warnings] == [
        "column 'PatientID' is not used",
        "2 of 2 studies name no subject: each file counts as a subject of its own",
    ]


def test_colour_is_read_as_three_channels_and_size_resizes(folder: Path) -> None:
    for index in range(4):
        Image.new("RGB", (20 + index, 30), (255, index, 0)).save(folder / f"rgb{index}.png")
    (folder / "rgb.csv").write_text("file,label\n" + "".join(f"rgb{i}.png,{i % 2}\n" for i in range(4)))
    (part,) = read_cases(folder, csv=folder / "rgb.csv").values()
    assert [image.shape for image in pixels(part)] == [(3, 30, 20 + index) for index in range(4)]
    assert part.recipe["images"]["image"]["size"] is None
    (part,) = read_cases(folder, csv=folder / "rgb.csv", size=8).values()
    assert {image.shape for image in pixels(part)} == {(3, 8, 8)}
    assert pixels(part)[0][0].min() == 255
    assert part.recipe["images"]["image"]["size"] == [8, 8]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("0.png", "DoeJane.png", r"table\.csv: row 2 of the table: cannot be opened: No such file"),
        ("1.jpg", "DoeJane.txt", r"row 3 of the table: cannot be opened: No such file"),
        ("label", "lable", "no column 'label' for the role label; did you mean 'lable'"),
        ("file,label,subject", "file,subject,other", "no column 'label' for the role label among the 3"),
        ("file,label,subject", "file,label,label", "column 'label' is there 2 times"),
        ("file,label,subject", "fille,label,subject", "'path' or 'file' for the role path; did you mean 'fille'"),
        ("patient-0", "", "row 2 of the table: the subject is empty"),
        ("patient-0", "NA", "row 2 of the table: the subject is empty"),
        ("0.png", "", "row 2 of the table: the path is empty"),
        ("0.png,benign,patient-0", "0.png,benign,DoeJane,extra", "row 2 has 4 cells, the header 3"),
        ("1.jpg", "./0.png", "row 3 of the table: the same file as in row 2"),
        ("1.jpg", "sub/../0.png", "row 3 of the table: the path is absolute or has '..'"),
    ],
)
def test_a_fault_in_the_table_names_the_row_and_nobody(folder: Path, old: str, new: str, message: str) -> None:
    _edit(folder, old, new)
    with pytest.raises(DataError, match=message) as caught:
        read_cases(folder, csv=folder / "table.csv")
    assert "DoeJane" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_path_that_leaves_the_folder_is_refused(folder: Path) -> None:
    _edit(folder, "1.jpg", f"../{folder.name}/0.png")
    with pytest.raises(DataError, match=r"row 3 of the table: the path is absolute or has '\.\.'"):
        read_cases(folder, csv=folder / "table.csv")


@pytest.mark.parametrize(("one", "same"), [("1", "1.0"), ("007", "007."), ("Zo\u00eb", "Zoe\u0308")])
def test_one_subject_written_in_two_ways_is_in_one_split(folder: Path, one: str, same: str) -> None:
    table = folder / "same.csv"
    table.write_text(f"file,label,split,subject\n0.png,a,train,{one}\n1.jpg,b,test,{same}\n", encoding="utf-8")
    with pytest.raises(DataError, match="row 2 in split train and row 3 in split test are of one subject"):
        read_cases(folder, csv=table)
    table.write_text(f"file,label,split,subject\n0.png,a,train,{one}\n1.jpg,b,test,{one}2\n", encoding="utf-8")
    assert set(read_cases(folder, csv=table)) == {"train", "test"}


def test_faults_of_whole_tables_are_named(folder: Path) -> None:
    with pytest.raises(DataError, match=r"other\.csv: cannot be opened: No such file"):
        read_cases(folder, csv=folder / "other.csv")
    with pytest.raises(DataError, match="no such file or folder"):
        read_cases(folder / "nowhere", csv=folder / "table.csv")
    for content, message in [
        ("file,label\n", "a header and no rows"),
        ("file,label\n0.png,a\n", "all labels are the same; expected at least two classes"),
        ("file,label\n0.png,\n1.jpg,NA\n", "no row has a label"),
        ("file,label,split\n0.png,a,trian\n", "row 2 of the table: the split is none of train, val, test"),
        ("file,label,split\n0.png,a,test\n1.jpg,b,test\n", "no image is in the train split"),
        (
            "file,label,split,subject\n0.png,a,train,x\n1.jpg,b,test,x\n",
            "row 2 of the table in split train and row 3 of the table in split test are of one subject",
        ),
    ]:
        (folder / "bad.csv").write_text(content)
        with pytest.raises(DataError, match=message):
            read_cases(folder, csv=folder / "bad.csv")


def test_a_truncated_image_and_mixed_channels_are_named(folder: Path) -> None:
    content = (folder / "0.png").read_bytes()
    (folder / "0.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"row 2 of the table: the picture cannot be decoded"):
        read_cases(folder, csv=folder / "table.csv")
    Image.new("RGB", (12, 10), (255, 0, 0)).save(folder / "0.png")
    named = r"row 2 of the table: has 3 channels of different colours, most of the other images have 1"
    with pytest.raises(DataError, match=named):
        read_cases(folder, csv=folder / "table.csv")
    Image.new("RGB", (12, 10), (9, 9, 9)).save(folder / "0.png")
    assert {len(image) for image in pixels(read_cases(folder, csv=folder / "table.csv")["train"])} == {1}


def test_depths_are_not_mixed_and_deeper_values_are_scaled_by_percentiles(folder: Path) -> None:
    deep = np.random.default_rng(1).integers(0, 4096, (10, 12), dtype=np.uint16)
    Image.fromarray(deep).save(folder / "0.png")
    message = (
        r"row 3 of the table is a picture of 8 bits, row 2 of the table holds measured values.*"
        r"intensity\.percentile=\[0\.5,99\.5\]"
    )
    with pytest.raises(DataError, match=message):
        read_cases(folder, csv=folder / "table.csv")
    given = {"intensity": {"window": [2048, 4096]}}
    (part,) = read_cases(folder, csv=folder / "table.csv", prepare=given).values()
    np.testing.assert_array_equal(pixels(part)[0][0], np.rint(deep / 4096 * 255))
    np.save(folder / "2.npy", np.zeros((10, 12), np.float32))
    Image.new("L", (12, 10)).save(folder / "0.png")
    with pytest.raises(DataError, match="row 4 of the table holds measured values"):
        read_cases(folder, csv=folder / "table.csv")


def test_an_npy_with_objects_is_not_unpickled(folder: Path) -> None:
    np.save(folder / "2.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="row 4 of the table: the array"):
        read_cases(folder, csv=folder / "table.csv")
