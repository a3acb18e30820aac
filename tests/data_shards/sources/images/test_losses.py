"""A build that stops at errors stops for every image that is lost, whoever found out; one that skips lists it."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data_shards.sources.base import Skipped
from data_shards.support.errors import DataError
from data_shards.writing.writer import SKIPPED_FILE, write_dataset
from tests.data_shards.made_sources import toy_source
from tests.data_shards.sources.images.dicom.make import header, packaged, save, stack
from tests.data_shards.sources.images.dicom.test_grouping import brighter
from tests.data_shards.sources.images.make import grey_png, images

SHARES = {"train": 1, "val": 0, "test": 0}


def cut_header(root: Path) -> None:
    (root / "x.dcm").write_bytes((root / "0.dcm").read_bytes()[:200])


def cut_before_pixels(root: Path) -> None:
    content = (root / "0.dcm").read_bytes()
    (root / "x.dcm").write_bytes(content[: content.index(b"\xe0\x7f\x10\x00")])


def cut_copy(root: Path) -> None:
    (root / "x.dcm").write_bytes((root / "0.dcm").read_bytes()[:-20])


def wrong_attribute(root: Path) -> None:
    save(header(np.zeros((4, 4), np.uint8), ImageOrientationPatient=[1, 0, 0, 0, 9, 0]), root / "x.dcm")


def other_at_one_place(root: Path) -> None:
    (path,) = stack(root / "more", change=brighter(5))[3:4]
    path.rename(root / "x.dcm")
    for rest in (root / "more").iterdir():
        rest.unlink()
    stack(root / "sound", SeriesInstanceUID="1.2.99", change=brighter(9))  # something that can be built


def cut_pixels(root: Path) -> None:
    dataset = header(np.zeros((4, 4), np.uint8), SeriesInstanceUID="1.2.98")
    content = save(dataset, root / "x.dcm").read_bytes()
    (root / "x.dcm").write_bytes(content[:-6])


def missing_slice(root: Path) -> None:
    (root / "2.dcm").unlink()
    save(header(np.zeros((4, 4), np.uint8), SeriesInstanceUID="1.2.98"), root / "sound.dcm")


def picture(root: Path) -> None:
    (root / "x.png").write_bytes(b"rubbish")


def array(root: Path) -> None:
    (root / "x.npy").write_bytes(b"\x93NUMPY rubbish")


def volume(root: Path) -> None:
    (root / "x.nii.gz").write_bytes(b"\x1f\x8b rubbish")


DAMAGE = [
    *(cut_header, cut_before_pixels, cut_copy, wrong_attribute, other_at_one_place, cut_pixels, missing_slice),
    *(picture, array, volume),
]


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("show_paths", [False, True])
def test_the_default_stops_with_the_name_and_skip_goes_on_and_lists(
    damage: Callable[[Path], None], show_paths: bool, tmp_path: Path
) -> None:
    root = tmp_path / "in"
    stack(root)
    damage(root)
    made = images(root, shares=SHARES, show_paths=show_paths)
    with pytest.raises(DataError) as caught:
        write_dataset(made, tmp_path / "out")
    assert str(caught.value).startswith(("x.", "0.dcm") if show_paths else ("file ", "series "))
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))
    manifest = write_dataset(made, tmp_path / "out", skip_errors=True)
    with (tmp_path / "out" / SKIPPED_FILE).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == manifest.skipped >= 1 and set(rows[0]) == {"item", "reason", "subject"}
    assert sum(split.samples for split in manifest.splits.values()) >= 1


def test_what_is_no_image_and_copies_do_not_stop_a_build(tmp_path: Path) -> None:
    paths = stack(tmp_path / "in")
    (tmp_path / "in" / "copy.dcm").write_bytes(paths[0].read_bytes())
    (tmp_path / "in" / "notes.txt").write_text("seen")
    (tmp_path / "in" / "report.dcm").write_bytes(packaged("test-SR.dcm").read_bytes())
    manifest = write_dataset(images(tmp_path / "in", shares=SHARES), tmp_path / "out")
    assert manifest.skipped == 3 and manifest.splits["train"].samples == 1


def test_a_damaged_file_in_the_folder_of_a_row_is_told(tmp_path: Path) -> None:
    root = tmp_path / "in"
    stack(root / "scan")
    cut_header_of = root / "scan" / "x.dcm"
    cut_header_of.write_bytes((root / "scan" / "0.dcm").read_bytes()[:200])
    (tmp_path / "table.csv").write_text("path\nscan\n")
    made = images(root, table=tmp_path / "table.csv", shares=SHARES)
    with pytest.raises(DataError, match="row 2 of the table: 1 of its 6 DICOM files cannot be used"):
        made.sample(0)


def test_a_file_that_cannot_be_opened_may_be_an_image(tmp_path: Path) -> None:
    grey_png(tmp_path / "a.png", 0)
    (tmp_path / "IM0001").symlink_to(tmp_path / "gone")
    (entry,) = images(tmp_path).skipped
    assert entry.lost and entry.item == "file 1"


def test_any_source_stops_for_what_its_listing_lost(tmp_path: Path) -> None:
    source = toy_source({"train": 3})
    source.skipped = [Skipped("row 7", "no image"), Skipped("row 8", "is broken", lost=True)] * 2
    with pytest.raises(
        DataError, match="^row 8: is broken, and 1 more like it; --on-error skip leaves such items out$"
    ):
        write_dataset(source, tmp_path / "out")
    assert write_dataset(source, tmp_path / "out", skip_errors=True).skipped == 4
