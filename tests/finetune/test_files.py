"""Folders of real and written files as cases: formats, labels, splits, subjects, bags, depth, and what is refused."""

from __future__ import annotations

import csv as csv_module
import json
import shutil
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file

from data_shards.prepare.intensity import percentiles, to_8_bits
from data_shards.sources.images.nifti import read_nifti
from data_shards.support.errors import DataError, MedformerError
from data_shards.vocabulary import Modality, Organ, Task
from finetune.cases import Cases
from finetune.readers import read_cases
from tests.data_shards.sources.images.dicom.make import CT, header, save, stack
from tests.data_shards.sources.images.make import table
from tests.data_shards.sources.images.test_privacy import archive, assert_clean


def pixels(part: Cases, name: str = "image") -> list[np.ndarray]:
    return [part.pictures.study(int(row)).images[name].pixels for row in part.rows]


def picture(path: Path, seed: int, shape: Sequence[int] = (6, 7), dtype: Any = np.uint8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    top = np.iinfo(dtype).max
    values = np.random.default_rng(seed).integers(0, top, shape, dtype=dtype, endpoint=True)
    if path.suffix == ".npy":
        np.save(path, values)
    else:
        Image.fromarray(values).save(path)
    return path


def series(folder: Path, number: int, patient: str, **attributes: Any) -> Path:
    """A volume of five slices of one patient."""

    def shift(index: int, dataset: pydicom.Dataset) -> None:
        values = np.random.default_rng((number, index)).permutation(np.frombuffer(dataset.PixelData, np.uint16))
        dataset.PixelData = values.tobytes()

    folder.mkdir(parents=True)
    stack(
        folder, change=shift, PatientID=patient, PatientName=patient, SeriesInstanceUID=f"1.2.9.{number}",
        StudyInstanceUID=f"1.2.8.{number}", **attributes,
    )  # fmt: skip
    return folder


def by_percentiles(values: np.ndarray) -> np.ndarray:
    """The rule of the document, by numpy alone: linear between the percentiles 0.5 and 99.5, to 0 and 255."""
    low, high = np.percentile(values.astype(np.float64), [0.5, 99.5])
    return np.rint(np.clip((values - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def test_sixty_volumes_in_two_folders_are_cases_with_the_folders_as_classes(shared_data: Path, tmp_path: Path) -> None:
    files = sorted((shared_data / "hippocampus" / "images").glob("*.nii.gz"))[:60]
    for index, file in enumerate(files):
        (tmp_path / ("small", "large")[index % 2]).mkdir(exist_ok=True)
        shutil.copy(file, tmp_path / ("small", "large")[index % 2] / file.name)
    told: list[tuple[int, int]] = []
    splits = read_cases(tmp_path, organ=Organ.brain, modality=Modality.mri, progress=lambda *at: told.append(at))
    (part,) = splits.values()
    assert set(splits) == {"train"} and len(part) == len(files) == 60
    assert (part.task, dict(part.classes)) == (Task.binary, {0: "large", 1: "small"})
    assert part.target.counts(part.labels) == {"large": 30, "small": 30}
    assert part.subjects is None and part.keys[0] == "file 1" and told[-1] == (60, 60)
    assert {(part.organ, part.modality)} == {(Organ.brain, Modality.mri)}
    image = part.recipe["images"]["image"]
    assert (image["dimensionality"], image["channels"], image["spacing"], image["size"]) == (
        "volumetric",
        1,
        "all",
        None,
    )
    large = sorted((tmp_path / "large").iterdir())[0]
    stored = np.asarray(nibabel.as_closest_canonical(nibabel.load(large)).dataobj)
    expected = by_percentiles(stored)[::-1, ::-1].transpose(2, 1, 0)  # RAS i,j,k to superior, posterior, left
    np.testing.assert_array_equal(pixels(part)[0][0], expected)
    study = part.pictures.study(0)
    assert study.organ is Organ.brain and study.images["image"].spacing_mm == (1.0, 1.0, 1.0)


def test_sixty_dicom_series_with_a_csv_are_cases_of_their_patients(tmp_path: Path) -> None:
    rows: list[tuple[object, ...]] = [("path", "label")]
    for number in range(60):
        series(tmp_path / f"Doe{number}", number, f"Doe{number // 2}")
        rows.append((f"Doe{number}", ("no", "yes")[number // 2 % 2]))
    listing = table(tmp_path / "list.csv", rows)
    (part,) = read_cases(tmp_path, csv=listing, size=8).values()
    assert len(part) == 60 and len(np.unique(part.subjects)) == 30
    assert (part.subjects.reshape(30, 2) == part.subjects.reshape(30, 2)[:, :1]).all()
    assert part.modality is Modality.mri and {image.shape for image in pixels(part)} == {(1, 8, 8, 8)}
    assert part.labels[:, 0].tolist() == [number // 2 % 2 for number in range(60)]
    assert part.keys[:2].tolist() == ["row 2", "row 3"]
    assert "Doe" not in repr(part.keys) + repr(part.warnings) + json.dumps(part.recipe) + part.note


def test_a_real_series_is_one_volume(shared_data: Path, tmp_path: Path) -> None:
    shutil.copytree(shared_data / "dicom_mr_series", tmp_path / "scan")
    (part,) = read_cases(tmp_path, label="none", options={"uneven_slices": "resample"}).values()
    assert part.labels is None and len(part) == 1 and part.keys[0].startswith("series 1")
    study = part.pictures.study(0)
    assert study.images["image"].pixels.ndim == 4 and study.images["image"].pixels.dtype == np.uint8
    assert part.recipe["options"] == {"uneven_slices": "resample"}
    assert any("do not say whether text is burned" in warning for warning in part.warnings)


def test_files_of_pydicom_and_nibabel(tmp_path: Path) -> None:
    for number, name in enumerate(("CT_small.dcm", "MR_small.dcm")):
        shutil.copy(str(get_testdata_file(name)), tmp_path / f"{number}.dcm")
    (part,) = read_cases(tmp_path).values()
    assert {study.images["image"].modality for study in map(part.pictures.study, part.rows)} == {
        Modality.ct,
        Modality.mri,
    }
    assert any("Hounsfield" in warning and "intensity.window=[40,400]" in warning for warning in part.warnings)
    raw = pydicom.dcmread(tmp_path / "0.dcm")
    values = raw.pixel_array.astype(np.float64) * raw.RescaleSlope + raw.RescaleIntercept
    (windowed,) = read_cases(tmp_path, prepare={"intensity": {"window": [40, 400]}}).values()
    np.testing.assert_array_equal(pixels(windowed)[0][0], np.rint(np.clip((values + 160) / 400, 0, 1) * 255))
    assert not any("Hounsfield" in warning for warning in windowed.warnings)

    folder = tmp_path / "nifti"
    folder.mkdir()
    data = Path(nibabel.__file__).parent / "tests" / "data"
    for name in ("anatomical.nii", "example4d.nii.gz"):
        shutil.copy(data / name, folder / name)
    with pytest.raises(DataError, match=r"file 2: .* has 2 frames; frames: first"):
        read_cases(folder)
    (part,) = read_cases(folder, options={"frames": "all"}).values()
    assert part.keys.tolist() == ["file 1", "file 2", "file 2, frame 2"]
    assert part.subjects.tolist()[1] == part.subjects.tolist()[2] != part.subjects.tolist()[0]
    first = read_nifti(folder / "anatomical.nii").pixels
    np.testing.assert_array_equal(pixels(part)[0], to_8_bits(first, percentiles(first, (0.5, 99.5))))


def test_padding_of_dicom_is_left_out_of_the_percentiles(tmp_path: Path) -> None:
    values = np.full((20, 20), -2000, np.int16)
    values[5:15, 5:15] = np.arange(100).reshape(10, 10)
    save(
        header(values, SOPClassUID=CT, Modality="CT", PixelPaddingValue=-2000, RescaleSlope=1, RescaleIntercept=0,
               PixelSpacing=[1, 1], ImageOrientationPatient=[1, 0, 0, 0, 1, 0], ImagePositionPatient=[0, 0, 0]),
        tmp_path / "a.dcm",
    )  # fmt: skip
    (part,) = read_cases(tmp_path).values()
    np.testing.assert_array_equal(pixels(part)[0][0, 5:15, 5:15], by_percentiles(values[5:15, 5:15]))


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.npy"])
def test_pictures_of_8_bits_stay_and_deeper_ones_are_scaled(tmp_path: Path, name: str) -> None:
    for dtype in (np.uint8, np.uint16):
        folder = tmp_path / np.dtype(dtype).name
        picture(folder / name, 1, dtype=dtype)
        values = np.load(folder / name) if name.endswith("npy") else np.asarray(Image.open(folder / name))
        (part,) = read_cases(folder).values()
        np.testing.assert_array_equal(pixels(part)[0][0], values if dtype is np.uint8 else by_percentiles(values))
        assert part.recipe["images"]["image"]["depth"] == ("8 bits" if dtype is np.uint8 else "measured")


def test_splits_of_folders_are_taken_where_all_at_the_top_are_splits(tmp_path: Path) -> None:
    for number, name in enumerate(["train/a/1.png", "train/b/2.png", "train/b/4.png", "test/a/3.png", "test/b/5.png"]):
        picture(tmp_path / name, number)
    splits = read_cases(tmp_path)
    assert {split: part.labels[:, 0].tolist() for split, part in splits.items()} == {"train": [0, 1, 1], "test": [0, 1]}
    assert dict(splits["test"].classes) == {0: "a", 1: "b"}
    for number in range(2):
        picture(tmp_path / f"more/{number}.png", 10 + number)
    (part,) = read_cases(tmp_path).values()
    assert dict(part.classes) == {0: "more", 1: "test", 2: "train"}


def test_one_folder_or_none_is_new_cases(tmp_path: Path) -> None:
    for number in range(3):
        picture(tmp_path / "scans" / f"{number}.png", number)
    (part,) = read_cases(tmp_path).values()
    assert part.labels is None and part.keys.tolist() == ["file 1", "file 2", "file 3"]
    (shown,) = read_cases(tmp_path, show_paths=True).values()
    assert shown.keys.tolist() == [f"scans/{number}.png" for number in range(3)]


def test_folders_of_patients_are_not_taken_for_classes(tmp_path: Path) -> None:
    for number in range(3):
        picture(tmp_path / f"DoeJane{number}" / "1.png", number)
    for number in range(3):
        series(tmp_path / "dicom" / f"DoeJohn{number}" / "one", 2 * number, f"P{number}")
        series(tmp_path / "dicom" / f"DoeJohn{number}" / "two", 2 * number + 1, f"P{number}")
    shutil.move(tmp_path / "dicom", tmp_path.parent / f"{tmp_path.name}-dicom")
    for folder in (tmp_path, tmp_path.parent / f"{tmp_path.name}-dicom"):
        with pytest.raises(DataError, match="each of the 3 sub-folders holds the images of one subject") as caught:
            read_cases(folder)
        assert "Doe" not in str(caught.value)
        assert next(iter(read_cases(folder, label="none").values())).labels is None
        assert len(next(iter(read_cases(folder, label="folder").values())).classes) == 3
    for number in range(30):
        picture(tmp_path / f"DoeJane{number}" / "1.png", number)
    with pytest.raises(DataError, match="30 sub-folders hold images: too many to be taken for classes"):
        read_cases(tmp_path)


def test_modalities_of_a_study_and_one_that_is_missing(tmp_path: Path) -> None:
    rows: list[tuple[object, ...]] = [("path", "study", "image", "label", "subject")]
    for number in range(4):
        for name in ("photo", "scan")[: 1 + (number != 2)]:
            deep = name == "scan"
            file = picture(tmp_path / f"{number}-{name}.png", 10 * number + deep, dtype=np.uint16 if deep else np.uint8)
            rows.append((file.name, number, name, number % 2, number))
        Image.fromarray(np.ones((6, 7), np.uint8)).save(tmp_path / f"{number}-mask.png")
        rows.append((f"{number}-mask.png", number, "mask", number % 2, number))
    (part,) = read_cases(tmp_path, csv=table(tmp_path / "t.csv", rows)).values()
    assert [sorted(part.pictures.study(int(row)).images) for row in part.rows] == [
        ["photo", "scan"], ["photo", "scan"], ["photo"], ["photo", "scan"],
    ]  # fmt: skip
    assert {name: image["depth"] for name, image in part.recipe["images"].items()} == {
        "photo": "8 bits",
        "scan": "measured",
    }
    values = np.asarray(Image.open(tmp_path / "0-scan.png"))
    np.testing.assert_array_equal(part.pictures.study(0).images["scan"].pixels[0], by_percentiles(values))


def bag_rows(folder: Path) -> list[list[object]]:
    """Four bags of two or three slices, their rows mixed."""
    rows: list[list[object]] = []
    for number in range(10):
        file = picture(folder / f"{number}.png", number)
        rows.append(
            [file.name, f"Doe{number % 4}", number % 4 % 2, f"s{number % 4}", "train" if number % 4 < 2 else "test"]
        )
    return rows


HEAD = ["path", "bag", "label", "subject", "split"]


def test_bags_are_cases(tmp_path: Path) -> None:
    splits = read_cases(tmp_path, csv=table(tmp_path / "t.csv", [HEAD, *bag_rows(tmp_path)]))
    assert {split: len(part) for split, part in splits.items()} == {"train": 2, "test": 2}
    train = splits["train"]
    assert train.bagged and [len(train.rows_of(case)) for case in range(2)] == [3, 3]
    assert train.keys.tolist() == ["row 2", "row 3"] and train.labels[:, 0].tolist() == [0, 1]
    for case in range(2):
        for row, number in zip(train.rows_of(case), (case, case + 4, case + 8), strict=True):
            expected = np.asarray(Image.open(tmp_path / f"{number}.png"))
            np.testing.assert_array_equal(train.pictures.study(int(row)).images["image"].pixels[0], expected)
    without = [[cells[at] for at in (0, 1, 2)] for cells in [HEAD, *bag_rows(tmp_path)]]
    (part,) = read_cases(tmp_path, csv=table(tmp_path / "u.csv", without)).values()
    assert part.subjects is None and len(part) == 4


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (2, 1, "row 6 of the table: another label than row 2 of the table, which is of the same bag"),
        (3, "s1", "row 6 of the table: another subject than row 2 of the table"),
        (4, "test", "are of one subject; a subject is in one split"),
        (1, "", "row 6 of the table: the bag is empty"),
    ],
)
def test_a_bag_agrees_in_itself(tmp_path: Path, column: int, value: object, message: str) -> None:
    rows = bag_rows(tmp_path)
    rows[4][column] = value
    with pytest.raises(DataError, match=message) as caught:
        read_cases(tmp_path, csv=table(tmp_path / "t.csv", [HEAD, *rows]))
    assert "Doe" not in str(caught.value) and "\n" not in str(caught.value)


def test_images_with_names_in_a_bag_are_one_study(tmp_path: Path) -> None:
    rows: list[list[object]] = [["path", "bag", "image", "label"]]
    for number in range(4):
        for name in ("t1", "t2"):
            file = picture(tmp_path / f"{number}-{name}.png", 10 * number + (name == "t2"))
            rows.append([file.name, f"b{number}", name, number % 2])
    (part,) = read_cases(tmp_path, csv=table(tmp_path / "t.csv", rows)).values()
    assert not part.bagged and len(part) == 4 and sorted(part.pictures.study(0).images) == ["t1", "t2"]
    rows[2][2] = "t1"
    with pytest.raises(
        DataError, match="row 3 of the table: its bag has an image of this name in row 2; a column study"
    ):
        read_cases(tmp_path, csv=table(tmp_path / "t.csv", rows))


def labelled(folder: Path, cells: Sequence[Sequence[object]], head: Sequence[str] = ("label",)) -> Path:
    rows: list[Sequence[object]] = [("file", *head)]
    rows += [(picture(folder / f"{number}.png", number).name, *cell) for number, cell in enumerate(cells)]
    return table(folder / "t.csv", rows)


def test_numbers_order_and_several_labels(tmp_path: Path) -> None:
    listing = labelled(tmp_path, [("0.5",), ("2",), ("-1e1",), ("3",)])
    (part,) = read_cases(tmp_path, csv=listing, task=Task.regression).values()
    assert part.labels.dtype == np.float64 and part.labels[:, 0].tolist() == [0.5, 2, -10, 3]
    assert (part.task, dict(part.classes)) == (Task.regression, {0: "label"})
    listing = labelled(tmp_path, [("grade 10",), ("grade 2",), ("grade 1",)])
    (part,) = read_cases(tmp_path, csv=listing, task=Task.ordinal).values()
    assert (part.task, list(part.classes.values())) == (Task.ordinal, ["grade 1", "grade 2", "grade 10"])
    assert part.labels.dtype == np.int64 and part.labels[:, 0].tolist() == [2, 1, 0]
    listing = labelled(tmp_path, [(1, "no"), (0, "yes"), (1, "yes")], ("mass", "cyst"))
    (part,) = read_cases(tmp_path, csv=listing, options={"columns": {"label": ["mass", "cyst"]}}).values()
    assert (part.task, dict(part.classes)) == (Task.multilabel, {0: "mass", 1: "cyst"})
    assert part.labels.tolist() == [[1, 0], [0, 1], [1, 1]]
    (part,) = read_cases(
        tmp_path,
        csv=labelled(tmp_path, [(1, 2.5), (0, 3.5)], ("mass", "cyst")),
        task=Task.regression,
        options={"columns": {"label": ["mass", "cyst"]}},
    ).values()
    assert part.labels.tolist() == [[1, 2.5], [0, 3.5]] and dict(part.classes) == {0: "mass", 1: "cyst"}


def test_rows_without_label_are_left_out_and_kept_for_prediction(tmp_path: Path) -> None:
    listing = labelled(tmp_path, [("a",), ("",), ("b",), ("NaN",)])
    (part,) = read_cases(tmp_path, csv=listing).values()
    assert part.keys.tolist() == ["row 2", "row 4"]
    assert "2 of 4 rows have no label and are left out: 3, 5" in part.warnings
    (part,) = read_cases(tmp_path, csv=listing, label="none").values()
    assert part.labels is None and len(part) == 4
    numbers = labelled(tmp_path, [(1.5,), ("NaN",), (2.5,)])
    (part,) = read_cases(tmp_path, csv=numbers, task=Task.regression).values()
    assert part.labels.tolist() == [[1.5], [2.5]]
    assert "1 of 3 rows have no label and are left out: 3" in part.warnings


def test_the_same_pixels_count_as_one_subject(tmp_path: Path) -> None:
    listing = labelled(tmp_path, [("a",), ("b",), ("a",), ("b",)])
    shutil.copy(tmp_path / "0.png", tmp_path / "2.png")
    (part,) = read_cases(tmp_path, csv=listing).values()
    assert part.subjects.tolist() == [0, 1, 0, 3]
    assert any(
        "1 of 4 cases have the pixels of another and count as its subject: row 4 as row 2" in w for w in part.warnings
    )


def test_a_colour_table_of_npy_arrays_has_the_axes_that_leave_no_choice(tmp_path: Path) -> None:
    for number in range(2):
        picture(tmp_path / "last" / f"{number}.npy", number, (5, 6, 3))
        picture(tmp_path / "first" / f"{number}.npy", number, (3, 5, 6))
        picture(tmp_path / "volume" / f"{number}.npy", number, (1, 4, 5, 6))
        picture(tmp_path / "unknown" / f"{number}.npy", number, (4, 5, 6))
    shapes = {"last": (3, 5, 6), "first": (3, 5, 6), "volume": (1, 4, 5, 6)}
    for name, shape in shapes.items():
        (part,) = read_cases(tmp_path / name).values()
        assert {image.shape for image in pixels(part)} == {shape}
    with pytest.raises(DataError, match=r"file 1: the array has 3 axes and axes is not given; .*DHW"):
        read_cases(tmp_path / "unknown")
    (part,) = read_cases(tmp_path / "unknown", options={"axes": "DHW"}).values()
    assert pixels(part)[0].shape == (1, 4, 5, 6) and part.recipe["options"] == {"axes": "DHW"}


def test_grey_and_colour_arrays_become_what_most_are(tmp_path: Path) -> None:
    colour = np.repeat(np.arange(30, dtype=np.uint8).reshape(5, 6, 1), 3, axis=2)
    np.save(tmp_path / "0.npy", colour)
    for number in (1, 2):
        picture(tmp_path / f"{number}.npy", number, (5, 6))
    (part,) = read_cases(tmp_path).values()
    assert [len(image) for image in pixels(part)] == [1, 1, 1]
    assert part.recipe["images"]["image"]["channels"] == 1
    colour[0, 0] = (1, 2, 3)
    np.save(tmp_path / "0.npy", colour)
    with pytest.raises(DataError, match=r"file 1 has 3 channels of different colours.*2 with 1 channel and 1 with 3"):
        read_cases(tmp_path)
    (part,) = read_cases(tmp_path, channels=3).values()
    assert [len(image) for image in pixels(part)] == [3, 3, 3]
    with pytest.raises(DataError, match="images have different numbers of channels"):
        read_cases(tmp_path, channels="keep")


def test_the_preparation_is_that_of_shards(tmp_path: Path) -> None:
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    values = np.random.default_rng(0).normal(size=(6, 7, 8)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / "a.nii")
    prepare = {"spacing_mm": 1, "size": [10, 10, 10], "intensity": {"window": [0, 4]}}
    (part,) = read_cases(tmp_path, prepare=prepare).values()
    image = part.pictures.study(0).images["image"]
    assert image.pixels.shape == (1, 10, 10, 10) and image.spacing_mm == (1.0, 1.0, 1.0)
    with pytest.raises(DataError, match="the size is given twice"):
        read_cases(tmp_path, prepare=prepare, size=4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frams": "all"}, "unknown key 'frams'; did you mean 'frames'"),
        ({"frames": "some"}, "frames"),
        ({"root": "/"}, "option root is not one of reading images for a classifier"),
    ],
)
def test_options_are_those_of_the_source(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    picture(tmp_path / "a.png", 0)
    with pytest.raises(MedformerError, match=message) as caught:
        read_cases(tmp_path, options=options)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="columns are named and there is no table"):
        read_cases(tmp_path, options={"columns": {"label": "grade"}})
    with pytest.raises(MedformerError, match="prepare: unknown key 'sise'; did you mean 'size'"):
        read_cases(tmp_path, prepare={"sise": 3})


def test_what_cannot_be_used_is_refused_in_one_line_that_names_nobody(tmp_path: Path) -> None:
    def refused(message: str, listing: Path | None = None, folder: Path = tmp_path, **told: Any) -> None:
        with pytest.raises(DataError, match=message) as caught:
            read_cases(folder, csv=listing, **told)
        assert "\n" not in str(caught.value) and "Doe" not in str(caught.value)

    (tmp_path / "empty").mkdir()
    refused("no image in this folder", folder=tmp_path / "empty")
    refused("all labels are the same", labelled(tmp_path, [("a",), ("a",)]))
    refused(
        "all labels are the same; expected at least two different numbers",
        labelled(tmp_path, [(1,), (1,)]),
        task=Task.regression,
    )
    refused(
        "row 3 of the table: the label is not a finite number",
        labelled(tmp_path, [(1,), ("inf",)]),
        task=Task.regression,
    )
    refused("no column 'label' for the role label", labelled(tmp_path, [("a",), ("b",)], ("other",)))
    missing = labelled(tmp_path, [("a",), ("b",)])
    (tmp_path / "1.png").unlink()
    refused("row 3 of the table: cannot be opened", missing)
    refused(
        "row 3 of the table: the same file as in row 2",
        table(tmp_path / "t.csv", [("file", "label"), ("0.png", "a"), ("0.png", "b")]),
    )
    picture(tmp_path / "DoeJane.png", 1)
    shutil.copy(tmp_path / "0.png", tmp_path / "DoeJohn.png")
    rows = [("file", "label"), ("0.png", "a"), ("DoeJohn.png", "b")]
    refused("row 2 and row 3 have the same pixels once prepared and different labels", table(tmp_path / "t.csv", rows))
    rows = [
        ("file", "label", "split"),
        ("0.png", "a", "train"),
        ("DoeJane.png", "b", "train"),
        ("DoeJohn.png", "a", "test"),
    ]
    refused(
        "row 2 and row 4 have the same pixels once prepared and are in splits train and test",
        table(tmp_path / "t.csv", rows),
    )
    rows = [("file", "label", "split", "subject"), ("0.png", "a", "train", "Doe"), ("DoeJane.png", "b", "test", "Doe")]
    refused("are of one subject; a subject is in one split", table(tmp_path / "t.csv", rows))
    picture(tmp_path / "Doe.npy", 1, (1, 3, 4, 5))
    rows = [("file", "label"), ("0.png", "a"), ("Doe.npy", "b")]
    refused("planes and volumes are mixed: row 2 of the table is planar, row 3", table(tmp_path / "t.csv", rows))


def test_a_damaged_file_stops_or_is_skipped(tmp_path: Path) -> None:
    listing = labelled(tmp_path, [("a",), ("b",), ("a",), ("b",)])
    content = (tmp_path / "1.png").read_bytes()
    (tmp_path / "1.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"t\.csv: row 3 of the table: the picture cannot be decoded"):
        read_cases(tmp_path, csv=listing)
    (part,) = read_cases(tmp_path, csv=listing, on_error="skip").values()
    assert part.keys.tolist() == ["row 2", "row 4", "row 5"] and part.labels[:, 0].tolist() == [0, 0, 1]
    for image, number in zip(pixels(part), (0, 2, 3), strict=True):
        np.testing.assert_array_equal(image[0], np.asarray(Image.open(tmp_path / f"{number}.png")))
    assert any("1 of 4 studies cannot be read and are left out: row 3" in warning for warning in part.warnings)
    part.digests()


ANY_DEPTH = {"prepare": {"intensity": {"percentile": [0, 100]}}, "size": 4}


def test_a_marked_archive_leaves_no_mark(tmp_path: Path) -> None:
    root = archive(tmp_path / "root")
    for told, message in [
        ({}, "is a picture of 8 bits, file 2 holds measured values"),
        (ANY_DEPTH, "file 2: the NIfTI volume has an unus"),
    ]:
        with pytest.raises(DataError, match=message) as caught:
            read_cases(root, **told)
        assert caught.value.__cause__ is None and caught.value.__suppress_context__
        assert_clean(
            [str(caught.value).encode(), *(text.encode() for text in traceback.format_exception(caught.value))]
        )
    for volume in [*root.rglob("*.nii"), *root.rglob("*.nii.gz"), *root.rglob("scan/*")]:
        volume.unlink()  # planes alone
    (part,) = read_cases(root, on_error="skip", **ANY_DEPTH).values()
    assert len(part) == 5 and any("10 of 15 studies cannot be read" in warning for warning in part.warnings)
    assert_clean(
        [repr(vars(part)).encode(), repr(part).encode(), repr([part.pictures.study(row) for row in part.rows]).encode()]
    )


def test_nothing_that_cases_say_names_anybody(tmp_path: Path) -> None:
    mark = "ZyXcanary"
    with (tmp_path / "t.csv").open("w", newline="") as file:
        writer = csv_module.writer(file)
        writer.writerow(["path", "label", "subject", "bag"])
        for number in range(4):
            name = picture(tmp_path / mark / f"{mark}{number}.png", number).relative_to(tmp_path)
            writer.writerow([name, "ab"[number % 2], f"{mark}-{number}", f"{mark}-bag-{number}"])
        series(tmp_path / f"{mark}-scan", 1, mark)
    for told in ({"csv": tmp_path / "t.csv"}, {"prepare": {"intensity": {"percentile": [0, 100]}}, "size": 4}):
        if "csv" not in told:
            shutil.rmtree(tmp_path / f"{mark}-scan")
        for part in read_cases(tmp_path, **told).values():
            said = [
                part.name,
                part.keys,
                part.subjects,
                part.note,
                part.source,
                part.warnings,
                part.recipe,
                part.classes,
            ]
            assert mark not in repr(said) and repr(part.rows)
