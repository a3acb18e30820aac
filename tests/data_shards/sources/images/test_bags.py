"""The role bag of a table, and what the source says of a study before its pixels are read."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_shards.support.errors import DataError
from data_shards.writing.writer import write_dataset
from tests.data_shards.sources.images.dicom.make import stack
from tests.data_shards.sources.images.make import grey_png, images, nifti, table


def test_studies_of_a_bag_stay_samples_of_their_own(tmp_path: Path) -> None:
    rows: list[tuple[object, ...]] = [("path", "bag", "label", "subject")]
    for number in range(4):
        grey_png(tmp_path / f"{number}.png", 20 * number)
        rows.append((f"{number}.png", f"b{number // 2}", number // 2, number // 2))
    source = images(tmp_path, table=table(tmp_path / "t.csv", rows))
    assert [source.bag_of(position) for position in range(4)] == ["b0", "b0", "b1", "b1"]
    assert [source.subject_of(position) for position in range(4)] == ["0", "0", "1", "1"]
    assert all(source.knows_subject(position) for position in range(4))
    assert [source.label_of(position).tolist() for position in range(4)] == [[0], [0], [1], [1]]  # type: ignore[union-attr]
    manifest = write_dataset(source, tmp_path / "shards")
    assert sum(entry.samples for entry in manifest.splits.values()) == 4
    assert "b0" not in repr(source._studies)


def test_rows_with_names_in_a_bag_are_one_study(tmp_path: Path) -> None:
    rows: list[list[object]] = [["path", "bag", "image"]]
    for number, (bag, name) in enumerate([("x", "t1"), ("y", "t1"), ("x", "t2"), ("", "t1"), ("", "t1")]):
        grey_png(tmp_path / f"{number}.png", 20 * number)
        rows.append([f"{number}.png", bag, name])
    source = images(tmp_path, table=table(tmp_path / "t.csv", rows))
    assert [source.bag_of(position) for position in range(len(source))] == ["x", "y", None, None]
    assert [sorted(source.sample(position).images) for position in range(len(source))] == [["t1", "t2"], *[["t1"]] * 3]
    rows[3][2] = "t1"
    with pytest.raises(
        DataError, match="row 4 of the table: its bag has an image of this name in row 2; a column study"
    ):
        images(tmp_path, table=table(tmp_path / "t.csv", rows))
    rows = [[*row, study] for row, study in zip(rows, ("study", 1, 2, 3, 4, 5), strict=True)]
    source = images(tmp_path, table=table(tmp_path / "t.csv", rows))
    assert [source.bag_of(position) for position in range(5)] == ["x", "y", "x", None, None]
    rows[3][3] = 1
    rows[3][1:3] = ["y", "t2"]
    with pytest.raises(DataError, match="row 4 of the table: another bag than in row 2 of the same study"):
        images(tmp_path, table=table(tmp_path / "t.csv", rows))


def test_kinds_depths_and_subjects_are_known_before_pixels_are_read(tmp_path: Path) -> None:
    grey_png(tmp_path / "a.png", 1)
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "b.png")
    np.save(tmp_path / "c.npy", np.zeros((4, 4), np.uint8))
    np.save(tmp_path / "d.npy", np.zeros((4, 4), np.float32))
    nifti(tmp_path / "e.nii", np.zeros((3, 4, 5), np.uint8))
    (tmp_path / "f").mkdir()
    stack(tmp_path / "f", PatientID="Doe")
    (tmp_path / "g.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "h.npy").write_bytes(b"\x93NUMPY")
    source = images(tmp_path)
    assert source.kinds == {"picture", "npy", "nifti", "dicom"}
    depths = [source.has_8_bits(position)["image"] for position in range(len(source))]
    assert depths == [True, False, True, False, False, False, None, None]
    assert [source.knows_subject(position) for position in range(len(source))] == [False] * 5 + [True] + [False] * 2
    assert source.subject_of(5) == "Doe" and source.label_names == () and source.split_of(0) is None
    assert images(tmp_path, voi=True).has_8_bits(5) == {"image": True}
    shutil.rmtree(tmp_path / "f")
    assert images(tmp_path).kinds == {"picture", "npy", "nifti"}
