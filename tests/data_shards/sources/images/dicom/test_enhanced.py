from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from data_shards.sources.images.dicom import find_series, read_series
from data_shards.support.errors import DataError
from tests.data_shards.sources.images.dicom.make import (
    ENHANCED_MR,
    ORIGIN,
    SPACING,
    canonical,
    header,
    item,
    read,
    save,
)

PLANES = canonical()


def enhanced(
    order: list[int], echoes: tuple[float, ...] = (10.0,), *, slopes: bool = False, shared_orientation: bool = True
) -> Dataset:
    """An enhanced object with the slices of the anatomy in this order, once for each echo."""
    frames, groups = [], []
    orientation = item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    for number, echo in enumerate(echoes):
        for place in order:
            slope = place + 1 if slopes else 1
            frames.append((PLANES[place] + 1000 * number).astype(np.uint16))
            group = Dataset()
            position = ORIGIN + np.array([0, 0, place * SPACING[0]])
            group.PlanePositionSequence = item(ImagePositionPatient=[f"{value:g}" for value in position])
            group.PixelValueTransformationSequence = item(RescaleSlope=str(slope), RescaleIntercept="0")
            group.MREchoSequence = item(EffectiveEchoTime=echo)
            group.FrameVOILUTSequence = item(WindowCenter=str(200 + place), WindowWidth="400")
            if not shared_orientation:
                group.PlaneOrientationSequence = orientation
            groups.append(group)
    shared = Dataset()
    shared.PixelMeasuresSequence = item(PixelSpacing=list(SPACING[1:]), SliceThickness="9")
    # The frames' own slopes come first.
    shared.PixelValueTransformationSequence = item(RescaleSlope="99", RescaleIntercept="0")
    if shared_orientation:
        shared.PlaneOrientationSequence = orientation
    return header(
        np.stack(frames),
        SOPClassUID=ENHANCED_MR,
        SharedFunctionalGroupsSequence=Items([shared]),
        PerFrameFunctionalGroupsSequence=Items(groups),
    )


@pytest.mark.parametrize("shared", [True, False])
def test_frames_are_sorted_by_their_own_positions(shared: bool, tmp_path: Path) -> None:
    order = random.Random(2).sample(range(5), 5)
    (series,), unused = find_series([save(enhanced(order, shared_orientation=shared), tmp_path / "a")])
    image = read_series(series)
    assert not unused and series.oriented and image.spacing_mm == pytest.approx(SPACING)
    assert np.array_equal(image.pixels[0], PLANES)


def test_every_frame_has_its_own_slope(tmp_path: Path) -> None:
    image = read(save(enhanced([4, 3, 2, 1, 0], slopes=True), tmp_path / "a"))
    assert np.array_equal(image.pixels[0], PLANES * np.arange(1, 6)[:, None, None])


def test_the_window_of_the_middle_frame_shows_the_volume(tmp_path: Path) -> None:
    found = read(save(enhanced([4, 0, 2, 3, 1]), tmp_path / "a"), voi=True).pixels[0]
    expected = np.clip((PLANES - 201.5) / 399 + 0.5, 0, 1) * 255
    assert np.abs(found - expected).max() <= 0.5 + 1e-9


def test_two_echoes_in_one_file_are_two_volumes(tmp_path: Path) -> None:
    series, unused = find_series([save(enhanced([1, 0, 2, 4, 3], echoes=(10.0, 20.0)), tmp_path / "a")])
    assert not unused and len(series) == 2
    for number, each in enumerate(series):
        assert np.array_equal(read_series(each).pixels[0], PLANES + 1000 * number)


def test_a_missing_frame_is_named(tmp_path: Path) -> None:
    (series,), _ = find_series([save(enhanced([0, 1, 3, 4]), tmp_path / "a")])
    with pytest.raises(
        DataError, match=r"slices 2 and 3 of 4 lie 6.000 mm apart, most others 3.000: a slice is missing"
    ):
        read_series(series)


def test_fewer_groups_than_frames_are_refused(tmp_path: Path) -> None:
    dataset = enhanced([0, 1, 2])
    dataset.PerFrameFunctionalGroupsSequence.pop()
    series, ((_, reason, _),) = find_series([save(dataset, tmp_path / "a")])
    assert not series and reason == "frame 3 has no functional group"


def test_frames_without_positions_stay_as_they_are(tmp_path: Path) -> None:
    dataset = enhanced([3, 1, 0])
    dataset.SliceLocation, dataset.InstanceNumber = "5", "1"  # of the file, not of a frame
    for group in dataset.PerFrameFunctionalGroupsSequence:
        del group.PlanePositionSequence
    (series,), unused = find_series([save(dataset, tmp_path / "a")])
    image = read_series(series)
    assert not unused and not series.oriented and np.array_equal(image.pixels[0], PLANES[[3, 1, 0]])
    assert image.spacing_mm == (9.0, *SPACING[1:])
