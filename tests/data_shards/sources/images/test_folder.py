"""Archives that are folders: what is an image, what folders mean, and what is left out with the reason."""

from __future__ import annotations

import gzip
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from data_shards.sample import subject_hash
from data_shards.sources.images.folder import list_files, outside
from data_shards.sources.images.kinds import kind_of
from data_shards.support.errors import DataError
from tests.data_shards.sources.images.dicom.make import header, save, stack
from tests.data_shards.sources.images.make import SALT, grey_png, images, nifti, reference, stored_as, tree


def test_every_format_is_found_by_its_content_under_any_name(tmp_path: Path):
    data, affine = stored_as(reference(), "RAS")
    nifti(tmp_path / "v.nii", data, affine).rename(tmp_path / "a")
    nifti(tmp_path / "v.nii.gz", data, affine).rename(tmp_path / "b.txt")
    grey_png(tmp_path / "c.dcm", 5)
    np.save(tmp_path / "d.npy", np.zeros((2, 3), np.uint8))
    (tmp_path / "d.npy").rename(tmp_path / "d")
    save(header(np.zeros((3, 4), np.uint8)), tmp_path / "e")
    made = images(tmp_path)
    assert [sample.image.pixels.shape for sample in made] == [
        (1, 3, 4, 5),
        (1, 3, 4, 5),
        (1, 4, 4),
        (1, 2, 3),
        (1, 3, 4),
    ]
    assert not made.skipped
    assert [kind_of(tmp_path / name)[0] for name in ("a", "b.txt", "c.dcm", "d", "e")] == [
        *("nifti", "nifti", "picture", "npy", "dicom")
    ]


def test_a_dicom_file_whose_preamble_is_a_tiff_is_dicom(tmp_path: Path):
    path = save(header(np.zeros((3, 4), np.uint8)), tmp_path / "x")
    path.write_bytes(b"II*\0" + path.read_bytes()[4:])
    assert kind_of(path) == ("dicom", "")


OTHER = {
    "notes.txt": (b"DoeJane was here", "not a PNG, JPEG, TIFF, GIF, WebP, BMP, npy, NIfTI or DICOM file"),
    "nothing": (b"", "an empty file"),
    "arrays.npz": (b"PK\x03\x04" + bytes(400), "a zip or npz archive; save single arrays as npy"),
    "pair.hdr": ((348).to_bytes(4, "little") + bytes(340) + b"ni1\0" + bytes(8), "the header of a NIfTI pair"),
    "packed.gz": (gzip.compress(b"DoeJane" * 100), "a gzip file without a NIfTI volume inside"),
    "broken.gz": (b"\x1f\x8b\x08\0DoeJane" + bytes(400), "the file is a damaged gzip file"),
}


def test_what_is_no_image_is_skipped_with_the_reason(tmp_path: Path):
    grey_png(tmp_path / "image.png", 0)
    for name, (content, _) in OTHER.items():
        (tmp_path / name).write_bytes(content)
    made = images(tmp_path)
    names = sorted([*OTHER, "image.png"])
    assert len(made) == 1 and made.name_of(0) == f"file {names.index('image.png') + 1}"
    found = {item.item: item.reason for item in made.skipped}
    assert len(found) == len(OTHER)
    for name, (_, reason) in OTHER.items():
        assert found[f"file {names.index(name) + 1}"].startswith(reason)
    assert "DoeJane" not in str(made.skipped)


def test_a_damaged_file_with_the_name_of_an_image_is_not_passed_over(tmp_path: Path):
    grey_png(tmp_path / "a.png", 0)
    for name in ("b.png", "c.npy", "d.nii", "e.nii.gz", "f.JPG"):
        (tmp_path / name).write_bytes(b"rubbish")
    made = images(tmp_path)
    assert len(made) == 6 and not made.skipped
    for position in range(1, 6):
        with pytest.raises(DataError, match=f"^file {position + 1}: "):
            made.sample(position)


def test_hidden_files_and_folders_are_counted_and_left_out(tmp_path: Path):
    tree(tmp_path, ["a.png", ".b.png", ".folder/c.png", "d/.e.png"])
    made = images(tmp_path)
    assert len(made) == 1
    assert [(item.item, item.reason) for item in made.skipped] == [
        ("3 hidden files and folders", "names that start with a dot")
    ]


def test_links_that_lead_outside_are_skipped_and_those_that_stay_are_read(tmp_path: Path):
    grey_png(tmp_path / "secret" / "x.png", 9)
    root = tree(tmp_path / "root", {"a.png": 1})
    (root / "b.png").symlink_to(tmp_path / "secret" / "x.png")
    (root / "c").symlink_to(tmp_path / "secret")
    (root / "d.png").symlink_to("a.png")
    (root / "e.png").symlink_to("e.png")
    (root / "f.png").symlink_to(root / "none.png")
    made = images(root)
    skipped = {item.item: item.reason for item in made.skipped}
    assert skipped["file 2"] == skipped["file 3"] == "a link that leads out of the root"
    assert "file 5" in skipped or made.name_of(2) == "file 5"
    assert int(made.sample(1).image.pixels[0, 0, 0]) == 1 and made.name_of(1) == "file 4"
    assert 9 not in [int(sample.image.pixels[0, 0, 0]) for sample in map(made.sample, (0, 1))]


def test_linked_folders_are_not_entered_so_that_circles_end(tmp_path: Path):
    root = tree(tmp_path, ["a/b.png"])
    (root / "a" / "up").symlink_to(root)
    assert list_files(root) == (["a/b.png", "a/up"], 0)
    assert len(images(root)) == 1


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/hosts"])
def test_paths_that_lead_outside_are_found(tmp_path: Path, path: str):
    assert outside(tmp_path, path) == "a link that leads out of the root" and outside(tmp_path, "a/b") == ""


def test_pipes_are_skipped_without_waiting(tmp_path: Path):
    grey_png(tmp_path / "a.png", 0)
    os.mkfifo(tmp_path / "pipe")
    assert [item.reason for item in images(tmp_path).skipped] == ["not a regular file"]


def test_dicom_files_without_suffix_are_joined_to_series(tmp_path: Path):
    for number, name in enumerate(("one", "two")):
        for path in stack(tmp_path / "all", SeriesInstanceUID=f"1.2.{number}", PatientID=f"P{number}"):
            path.rename(tmp_path / "all" / f"{name}{path.stem}")
    save(header(np.zeros((3, 4), np.uint8), PatientID="P3", SeriesInstanceUID="1.9"), tmp_path / "all" / "alone")
    made = images(tmp_path)
    assert [made.name_of(position) for position in range(3)] == ["file 1", "series 1", "series 2"]
    assert [sample.image.pixels.shape for sample in made] == [(1, 3, 4), (1, 5, 6, 7), (1, 5, 6, 7)]
    assert [sample.subject for sample in made] == [subject_hash(name, SALT) for name in ("P3", "P0", "P1")]


def test_a_slice_that_is_there_twice_is_listed_as_skipped(tmp_path: Path):
    paths = stack(tmp_path)
    shutil.copy(paths[0], tmp_path / "copy.dcm")
    made = images(tmp_path)
    assert len(made) == 1 and made.sample(0).image.pixels.shape == (1, 5, 6, 7)
    assert [(item.reason, item.lost) for item in made.skipped] == [
        ("the same image as another file of its series", False)
    ]


def test_a_series_in_folders_of_two_classes_is_refused(tmp_path: Path):
    paths = stack(tmp_path / "a")
    (tmp_path / "b").mkdir()
    paths[0].rename(tmp_path / "b" / "0.dcm")
    with pytest.raises(DataError, match="^series 1: its files are in folders that mean different"):
        images(tmp_path, label="folder")
    assert len(images(tmp_path)) == 1


def test_names_of_folders_are_classes(tmp_path: Path):
    made = images(tree(tmp_path, ["sick/1.png", "sick/2.png", "well/deep/3.png"]), label="folder")
    assert [sample.label.tolist() for sample in made] == [[0], [0], [1]]  # type: ignore[union-attr]
    assert made.card.classes == {0: "sick", 1: "well"} and made.card.task == "binary"


def test_names_of_folders_are_subjects(tmp_path: Path):
    made = images(tree(tmp_path, ["p1/1.png", "p1/x/2.png", "p2/3.png"]), subject="folder")
    assert [sample.subject for sample in made] == [subject_hash(name, SALT) for name in ("p1", "p1", "p2")]


def test_names_of_folders_are_splits(tmp_path: Path):
    made = images(tree(tmp_path, ["test/1.png", "train/2.png", "val/3.png"]), split="folders")
    assert [sample.split for sample in made] == ["test", "train", "val"]
    assert made.card.split_rule.startswith("given by the top folders")


def test_the_levels_come_in_the_order_split_class_subject(tmp_path: Path):
    root = tree(tmp_path, ["train/sick/p1/1.png", "test/well/p2/deep/2.png"])
    made = images(root, split="folders", label="folder", subject="folder")
    assert [(s.split, s.label.tolist(), s.subject) for s in made] == [  # type: ignore[union-attr]
        ("test", [1], subject_hash("p2", SALT)),
        ("train", [0], subject_hash("p1", SALT)),
    ]


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("DoeJane.png", {"label": "folder"}, "file 1: no folder above it says its class"),
        ("DoeJane.png", {"subject": "folder"}, "file 1: no folder above it says its subject"),
        ("DoeJane.png", {"split": "folders"}, "file 1: no folder above it says its split"),
        ("DoeJane/x.png", {"split": "folders"}, "file 1: its top folder is none of train, val, test"),
        ("train/x.png", {"split": "folders", "label": "folder"}, "file 1: no folder above it says its class"),
    ],
)
def test_a_level_that_is_missing_is_refused(tmp_path: Path, name: str, options: dict[str, str], message: str):
    with pytest.raises(DataError, match=message) as caught:
        images(tree(tmp_path, [name]), **options)
    assert "DoeJane" not in str(caught.value)


def test_folders_called_train_and_test_are_pointed_out_when_they_are_not_used(tmp_path: Path):
    root = tree(tmp_path, ["train/1.png", "test/2.png"])
    assert any("folders called train and test" in warning for warning in images(root).warnings)
    assert not any("folders called" in warning for warning in images(root, split="folders").warnings)


def test_paths_are_shown_only_when_the_user_says_so(tmp_path: Path):
    root = tree(tmp_path / "root", ["set/a.png"])
    (root / "set" / "b.txt").write_text("x")
    made = images(root, show_paths=True)
    assert made.name_of(0) == "set/a.png" and made.skipped[0].item == "set/b.txt"


def test_files_are_numbered_by_the_code_points_of_their_paths(tmp_path: Path):
    names = ["b.png", "B.png", "a/z.png", "a.png", "é.png", "10.png", "9.png"]
    made = images(tree(tmp_path, {name: number for number, name in enumerate(names)}))
    assert [int(sample.image.pixels[0, 0, 0]) for sample in made] == [names.index(name) for name in sorted(names)]


def test_a_name_that_is_not_utf_8_is_read(tmp_path: Path):
    grey_png(tmp_path / "a.png", 3)
    os.rename(tmp_path / "a.png", os.fsencode(tmp_path) + b"/\xff\xfe.png")
    made = images(tmp_path)
    assert int(made.sample(0).image.pixels[0, 0, 0]) == 3 and made.origin(0)["path_image"] == "\\xff\\xfe.png"


@pytest.mark.parametrize("name", ["DoeJane.txt", ".DoeJane.png"])
def test_a_folder_without_images_is_refused_with_the_first_reason(tmp_path: Path, name: str):
    (tmp_path / name).write_bytes(b"DoeJane")
    with pytest.raises(DataError, match="no image in this folder; (file 1: not a PNG|1 hidden)") as caught:
        images(tmp_path)
    assert "DoeJane" not in str(caught.value)


def test_an_empty_and_a_missing_folder_are_refused(tmp_path: Path):
    with pytest.raises(DataError, match="no image in this folder$"):
        images(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        images(tmp_path / "none")
