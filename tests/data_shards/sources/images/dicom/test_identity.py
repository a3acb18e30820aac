"""Which files are the same: those with the same content, whatever their identifiers say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless, generate_uid

from data_shards.sources.images.dicom import find_series, read_series
from data_shards.support.errors import DataError
from tests.data_shards.sources.images.dicom.make import canonical, save, stack
from tests.data_shards.sources.images.dicom.test_grouping import brighter, offsets
from tests.data_shards.sources.images.make import images

COPY = "the same image as another file of its series"
ONE_UID = dict.fromkeys(("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "SOPInstanceUID"), "1.2")


def sent_again(path: Path, to: Path, **attributes: object) -> Path:
    """The same image under another SOP Instance UID."""
    dataset = pydicom.dcmread(path)
    dataset.SOPInstanceUID = generate_uid()
    for name, content in attributes.items():
        setattr(dataset, name, content)
    return save(dataset, to)


def test_a_copy_of_a_file_is_dropped_and_nothing_is_lost(tmp_path: Path) -> None:
    paths = stack(tmp_path)
    (tmp_path / "copy").write_bytes(paths[2].read_bytes())
    series, unused = find_series([*paths, tmp_path / "copy"])
    assert unused == [(5, COPY, False)] and offsets(series) == [0]


def test_a_copy_that_was_cut_short_is_lost_and_does_not_take_the_place_of_the_whole(tmp_path: Path) -> None:
    paths = stack(tmp_path)
    short = tmp_path / "copy"
    short.write_bytes(paths[2].read_bytes()[:-10])
    series, unused = find_series([short, *paths])
    assert unused == [(0, "a copy of another file that was cut short", True)]
    assert set(series[0].paths) == set(paths) and offsets(series) == [0]


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("times", [1, 3])
def test_a_slice_that_was_sent_again_under_another_identifier_is_dropped(
    times: int, compress: bool, tmp_path: Path
) -> None:
    paths = stack(tmp_path)
    again = []
    for number in range(times):
        copy = sent_again(paths[3], tmp_path / f"again{number}")
        if compress:
            dataset = pydicom.dcmread(copy)
            dataset.compress(RLELossless, generate_instance_uid=False)
            dataset.save_as(copy)
        again.append(copy)
    series, unused = find_series([*paths, *again])
    assert offsets(series) == [0] and unused == [(5 + number, COPY, False) for number in range(times)]


def test_a_whole_series_that_was_sent_twice_is_one_volume(tmp_path: Path) -> None:
    paths = stack(tmp_path)
    again = [sent_again(path, tmp_path / f"again{number}") for number, path in enumerate(paths)]
    series, unused = find_series([*paths, *again])
    assert offsets(series) == [0] and unused == [(5 + number, COPY, False) for number in range(5)]


def test_another_image_at_the_place_of_a_slice_is_told(tmp_path: Path) -> None:
    paths = stack(tmp_path)
    dataset = pydicom.dcmread(paths[3])
    brighter(1)(3, dataset)
    dataset.SOPInstanceUID = generate_uid()
    series, unused = find_series([*paths, save(dataset, tmp_path / "other")])
    assert not series and len(unused) == 6 and all(one.damaged for one in unused)
    assert "several images lie at 1 of 5 places of its series, their pixels differ" in unused[0].reason
    # Other values in another unit are other images, too.
    assert not find_series([*paths, sent_again(paths[3], tmp_path / "other", RescaleSlope="2")])[0]


def test_equal_slices_at_different_places_are_all_kept(tmp_path: Path) -> None:
    def empty(number: int, dataset: Dataset) -> None:
        dataset.PixelData = bytes(len(dataset.PixelData))

    (series,), unused = find_series(stack(tmp_path, change=empty, **ONE_UID))
    assert not unused and read_series(series).pixels.shape == (1, 5, 6, 7)


def patients(root: Path, *, empty: bool = False, **attributes: object) -> None:
    """Two patients in folders of their own, all of their identifiers one constant; the second is brighter."""

    def change(number: int, dataset: Dataset) -> None:
        if empty and number == 0:  # the slice above the head is air in both
            dataset.PixelData = bytes(len(dataset.PixelData))

    content = {**ONE_UID, "PatientID": "anonymized", **attributes}
    stack(root / "p1", change=change, **content)

    def second(number: int, dataset: Dataset) -> None:
        brighter(1000)(number, dataset)
        change(number, dataset)

    stack(root / "p2", change=second, **content)


@pytest.mark.parametrize("options", [{"subject": "folder"}, {}, {"label": "folder"}])
@pytest.mark.parametrize("empty", [False, True])
def test_patients_whose_identifiers_are_one_constant_are_two_volumes(
    empty: bool, options: dict, tmp_path: Path
) -> None:
    patients(tmp_path, empty=empty)
    made = images(tmp_path, **options)
    assert len(made) == 2 and not made.skipped
    for number, sample in enumerate(made):
        expected = canonical() + 1000 * number
        expected[0] = 0 if empty else expected[0]
        assert np.array_equal(sample.image.pixels[0], expected)


def test_patients_who_share_a_series_but_no_file_are_told_apart_by_the_places_of_their_slices(tmp_path: Path) -> None:
    def fresh(number: int, dataset: Dataset) -> None:
        dataset.SOPInstanceUID = generate_uid()

    for patient in ("p1", "p2"):
        stack(tmp_path / patient, change=fresh, PatientID="anonymized")
    made = images(tmp_path, subject="folder")
    assert len(made) == 2 and len({sample.subject for sample in made}) == 2
    # Pixels and headers are the same, and folders say nothing: the files of the second are copies.
    assert len(images(tmp_path)) == 1


def test_one_series_in_the_folders_of_two_patients_is_still_an_error(tmp_path: Path) -> None:
    paths = stack(tmp_path / "p1")
    (tmp_path / "p2").mkdir()
    paths[4].rename(tmp_path / "p2" / "4.dcm")
    with pytest.raises(DataError, match="its files are in folders that mean different splits, classes or subjects"):
        images(tmp_path, subject="folder")
