"""Time is no depth: phases, time points and frames of clips are volumes or planes of their own, never one volume."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.tag import Tag
from pydicom.uid import generate_uid

from data_shards.sources.images.dicom import Series, find_series, read_series
from data_shards.support.errors import DataError
from tests.data_shards.sources.images.dicom.make import ENHANCED_MR, header, item, save
from tests.data_shards.sources.images.make import images

PLACES, TIMES, SIZE = 4, 3, 6
NM, US, XA = (f"1.2.840.10008.5.1.4.1.1.{number}" for number in ("20", "3.1", "12.1"))


def value(time: int, place: int) -> int:
    return 100 * time + place + 1


def cine(folder: Path, change: Callable[[Dataset, int, int, int], None], *, seed: int = 0) -> list[Path]:
    """A file for each place and time in any order; ``change`` gets the data set, time, place and a running number."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, (place, time) in enumerate((place, time) for place in range(PLACES) for time in range(TIMES)):
        dataset = header(np.full((SIZE, SIZE), value(time, place), np.int16))
        dataset.ImagePositionPatient = ["0", "0", str(8 * place)]
        dataset.ImageOrientationPatient, dataset.PixelSpacing = [1, 0, 0, 0, 1, 0], [1, 1]
        change(dataset, time, place, number)
        paths.append(save(dataset, folder / f"{number:02d}"))
    random.Random(seed).shuffle(paths)
    return paths


def contents(series: Sequence[Series]) -> list[list[int]]:
    """The values of each volume or plane, slice by slice; every slice has one value."""
    found = []
    for one in series:
        pixels = read_series(one).pixels
        planes = pixels[0] if pixels.ndim == 4 else pixels
        assert all(plane.min() == plane.max() for plane in planes)
        found.append([int(plane[0, 0]) for plane in planes])
    return found


VOLUMES = [[value(time, place) for place in range(PLACES)] for time in range(TIMES)]


def trigger(dataset: Dataset, time: int, place: int, number: int) -> None:
    dataset.TriggerTime = f"{time * (30 + 1.5 * place):.1f}"


def pet(dataset: Dataset, time: int, place: int, number: int) -> None:
    dataset.FrameReferenceTime = 1000.0 * time + 13 * place


def clock(dataset: Dataset, time: int, place: int, number: int) -> None:
    minutes, seconds = divmod(50 + 7 * number, 60)
    dataset.AcquisitionTime = f"15{30 + minutes}{seconds:02d}" + (".5" if number % 2 else "")


def midnight(dataset: Dataset, time: int, place: int, number: int) -> None:
    minutes = 23 * 60 + 55 + number
    dataset.AcquisitionTime = f"{minutes // 60 % 24:02d}{minutes % 60:02d}00"


def counted(dataset: Dataset, time: int, place: int, number: int) -> None:
    dataset.InstanceNumber = number + 1


def phase(dataset: Dataset, time: int, place: int, number: int) -> None:
    dataset.NominalPercentageOfCardiacPhase = (0.0, 40.0, 75.0)[time]


def moment(dataset: Dataset, time: int, place: int, number: int) -> None:
    dataset.AcquisitionDateTime = f"20200101{12 + time:02d}{place:02d}00.25"


@pytest.mark.parametrize(
    "change, name",
    [
        *((trigger, "TriggerTime"), (pet, "FrameReferenceTime"), (clock, "AcquisitionTime")),
        *((midnight, "AcquisitionTime"), (counted, "InstanceNumber"), (phase, "NominalPercentageOfCardiacPhase")),
        *((moment, "AcquisitionDateTime"),),
    ],
)
def test_the_order_of_a_time_at_each_place_tells_volumes_apart(change: Any, name: str, tmp_path: Path) -> None:
    series, unused = find_series(cine(tmp_path, change))
    assert not unused and sorted(contents(series)) == VOLUMES
    assert all(one.differs == (name,) for one in series)
    assert [content for one, content in zip(series, contents(series), strict=True) if one.first] == [VOLUMES[0]]


def first_of(name: str, texts: Sequence[str], folder: Path) -> list[list[int]]:
    """The volumes that are first when all slices of a time point share a value; the last point is found first."""

    def change(dataset: Dataset, time: int, place: int, number: int) -> None:
        setattr(dataset, name, texts[time])

    paths = sorted(cine(folder, change), key=lambda path: -(int(path.name) % TIMES))
    series, unused = find_series(paths)
    assert not unused and sorted(contents(series)) == VOLUMES
    return [content for one, content in zip(series, contents(series), strict=True) if one.first]


@pytest.mark.parametrize(
    "name, texts",
    [
        ("AcquisitionTime", ("235930", "000030", "000130")),
        ("AcquisitionTime", ("235930.5", "235945", "00")),
        ("AcquisitionDateTime", ("20240101100000-0500", "20240101100500-0500", "20240101101000-0500")),
        ("AcquisitionDateTime", ("20241027023000+0200", "20241027020500+0100", "20241027021000+0100")),
        ("AcquisitionDateTime", ("20240101100430", "202401011005", "20240101100530")),
        ("AcquisitionDateTime", ("20240229235959.9", "20240301", "20240301000000.1")),
        ("AcquisitionDateTime", ("20240101100000.000001", "20240101100000.000002", "20240101100000.000003")),
        ("AcquisitionDateTime", ("20240101100000+0100", "20240101100100", "20240101100200")),
    ],
)
def test_times_that_slices_share_are_ordered_as_times(name: str, texts: Sequence[str], tmp_path: Path) -> None:
    assert first_of(name, texts, tmp_path) == [VOLUMES[0]]


@pytest.mark.parametrize("offset", ["", "+0100", "-0500"])
def test_times_of_slices_may_lie_east_and_west_of_greenwich(offset: str, tmp_path: Path) -> None:
    def change(dataset: Dataset, time: int, place: int, number: int) -> None:
        moment(dataset, time, place, number)
        dataset.AcquisitionDateTime += offset

    series, unused = find_series(cine(tmp_path, change))
    assert not unused and sorted(contents(series)) == VOLUMES
    assert [content for one, content in zip(series, contents(series), strict=True) if one.first] == [VOLUMES[0]]


def test_when_the_last_time_point_broke_off_the_first_is_first_in_whatever_order_files_come(tmp_path: Path) -> None:
    def change(dataset: Dataset, time: int, place: int, number: int) -> None:
        dataset.AcquisitionNumber, dataset.AcquisitionTime = time + 9, ("235900", "000100", "000300")[time]

    paths = sorted(cine(tmp_path, change), key=lambda path: -(int(path.name) % TIMES))
    series, unused = find_series([path for path in paths if int(path.name) != PLACES * TIMES - 1])
    assert not unused and sorted(contents(series)) == [*VOLUMES[:2], VOLUMES[2][:-1]]
    assert [content for one, content in zip(series, contents(series), strict=True) if one.first] == [VOLUMES[0]]


def test_echoes_and_phases_together_are_told_apart(tmp_path: Path) -> None:
    paths = []
    for echo in (10, 20):

        def change(dataset: Dataset, time: int, place: int, number: int, echo: int = echo) -> None:
            trigger(dataset, time, place, number)
            dataset.EchoTime = echo
            dataset.PixelData = (np.frombuffer(dataset.PixelData, np.int16) + np.int16(1000 * echo)).tobytes()

        paths += cine(tmp_path / str(echo), change)
    series, unused = find_series(paths)
    assert not unused
    assert sorted(contents(series)) == [[v + 1000 * echo for v in volume] for echo in (10, 20) for volume in VOLUMES]
    assert sum(one.first for one in series) == 2  # the first phase of each echo


def test_a_phase_that_is_missing_at_one_place_is_not_made_up_from_the_next(tmp_path: Path) -> None:
    paths = sorted(cine(tmp_path, trigger))
    series, unused = find_series(paths[:4] + paths[5:])
    assert not series and len(unused) == 11 and all(one.damaged for one in unused)


def test_phases_at_one_place_are_planes(tmp_path: Path) -> None:
    paths = sorted(cine(tmp_path, trigger))[:TIMES]
    series, unused = find_series(paths)
    assert not unused and contents(series) == [[value(time, 0)] for time in range(TIMES)]


@pytest.mark.parametrize("name", ["TriggerTime", "TemporalPositionIdentifier", "EchoTime", "DiffusionBValue"])
def test_without_any_place_a_time_or_echo_is_no_depth_either(name: str, tmp_path: Path) -> None:
    def change(dataset: Dataset, time: int, place: int, number: int) -> None:
        del dataset.ImagePositionPatient
        dataset.InstanceNumber = 1 + place + time * PLACES
        setattr(dataset, name, 10 * time + 1)

    series, unused = find_series(cine(tmp_path / "volumes", change))
    assert not unused and sorted(contents(series)) == VOLUMES and all(one.numbered for one in series)
    planes = sorted(path for path in cine(tmp_path / "planes", change))[:TIMES]
    series, unused = find_series(planes)
    assert not unused and contents(series) == [[value(time, 0)] for time in range(TIMES)]


def test_without_any_place_a_series_said_to_have_time_points_is_planes(tmp_path: Path) -> None:
    def change(dataset: Dataset, time: int, place: int, number: int) -> None:
        del dataset.ImagePositionPatient
        dataset.InstanceNumber, dataset.CardiacNumberOfImages = number + 1, 12

    series, unused = find_series(cine(tmp_path, change))
    assert not unused and len(series) == PLACES * TIMES
    assert all(read_series(one).pixels.shape == (1, SIZE, SIZE) for one in series)


def clip(path: Path, frames: int = 5, **attributes: Any) -> Path:
    pixels = np.stack([np.full((SIZE, SIZE), number + 1, np.uint8) for number in range(frames)])
    return save(header(pixels, **attributes), path)


@pytest.mark.parametrize(
    "attributes, name",
    [
        ({"Modality": "US", "FrameTime": 33.3, "FrameIncrementPointer": Tag("FrameTime")}, "FrameTime"),
        ({"Modality": "XA", "SOPClassUID": XA, "FrameTimeVector": [0, 1, 1, 1, 1],
          "FrameIncrementPointer": Tag("FrameTimeVector")}, "FrameTimeVector"),
        ({"Modality": "US", "SOPClassUID": US}, "frame"),
        ({"Modality": "MR", "FrameTime": 40}, "FrameTime"),
        ({"Modality": "MR", "NumberOfTemporalPositions": 5}, "NumberOfTemporalPositions"),
        ({"Modality": "NM", "FrameIncrementPointer": [Tag("DetectorVector"), Tag("AngularViewVector")],
          "DetectorVector": [1] * 5, "AngularViewVector": [1, 2, 3, 4, 5]}, "AngularViewVector"),
    ],
)  # fmt: skip
def test_frames_of_a_clip_are_planes_of_their_own(attributes: dict[str, Any], name: str, tmp_path: Path) -> None:
    series, unused = find_series([clip(tmp_path / "a", **attributes)])
    assert not unused and contents(series) == [[1], [2], [3], [4], [5]]
    assert {one.differs for one in series} == {(name,)} and [one.first for one in series] == [True] + [False] * 4


def test_frames_of_a_file_in_slices_that_says_nothing_else_are_slices(tmp_path: Path) -> None:
    (series,), unused = find_series([clip(tmp_path / "a", Modality="CT", SliceThickness="2", PixelSpacing=[1, 1])])
    assert not unused and contents([series]) == [[1, 2, 3, 4, 5]] and read_series(series).spacing_mm == (2, 1, 1)


@pytest.mark.parametrize("step", [3.0, -3.0])
def test_slices_of_nuclear_medicine_are_placed_and_time_slots_are_volumes(step: float, tmp_path: Path) -> None:
    detector = item(ImagePositionPatient=[0, 0, 50], ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    path = clip(
        tmp_path / "a", 6, Modality="NM", SOPClassUID=NM, PixelSpacing=[2, 2], SpacingBetweenSlices=step,
        FrameIncrementPointer=[Tag("TimeSlotVector"), Tag("SliceVector")], DetectorInformationSequence=detector,
        TimeSlotVector=[1, 1, 1, 2, 2, 2], SliceVector=[1, 2, 3, 1, 2, 3],
    )  # fmt: skip
    series, unused = find_series([path])
    expected = [[1, 2, 3], [4, 5, 6]] if step > 0 else [[3, 2, 1], [6, 5, 4]]  # from feet to head
    assert not unused and contents(series) == expected and all(one.oriented for one in series)
    assert read_series(series[0]).spacing_mm == pytest.approx((3, 2, 2))


def test_a_vector_shorter_than_the_frames_is_refused(tmp_path: Path) -> None:
    path = clip(
        tmp_path / "a", Modality="NM", SOPClassUID=NM, FrameIncrementPointer=Tag("SliceVector"), SliceVector=[1, 2]
    )
    series, (unused,) = find_series([path])
    assert not series and unused.damaged and unused.reason == "SliceVector holds 2 numbers, expected 5"


def enhanced(path: Path, describe: Callable[[Dataset, int, int], None], **attributes: Any) -> Path:
    """An enhanced file of all places at all times; ``describe`` fills the functional group of a frame."""
    frames, groups = [], []
    for time in range(TIMES):
        for place in range(PLACES):
            frames.append(np.full((SIZE, SIZE), value(time, place), np.int16))
            group = Dataset()
            describe(group, time, place)
            groups.append(group)
    shared = Dataset()
    shared.PixelMeasuresSequence = item(PixelSpacing=[1, 1], SliceThickness="8")
    shared.PlaneOrientationSequence = item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    content = {
        "SOPClassUID": ENHANCED_MR,
        "SharedFunctionalGroupsSequence": Items([shared]),
        "PerFrameFunctionalGroupsSequence": Items(groups),
    }
    return save(header(np.stack(frames), **content | attributes), path)


def at(group: Dataset, place: int) -> None:
    group.PlanePositionSequence = item(ImagePositionPatient=[0, 0, 8 * place])


def by_dimension(group: Dataset, time: int, place: int) -> None:
    at(group, place)
    group.FrameContentSequence = item(DimensionIndexValues=[1, place + 1, time + 1])


def by_index(group: Dataset, time: int, place: int) -> None:
    at(group, place)
    group.FrameContentSequence = item(TemporalPositionIndex=time + 1)


def by_offset(group: Dataset, time: int, place: int) -> None:
    at(group, place)
    group.TemporalPositionSequence = item(TemporalPositionTimeOffset=1.5 * time + 0.1 * place)


def by_delay(group: Dataset, time: int, place: int) -> None:
    at(group, place)
    group.CardiacSynchronizationSequence = item(NominalCardiacTriggerDelayTime=30.0 * time + place)


def in_stack(group: Dataset, time: int, place: int) -> None:
    group.FrameContentSequence = item(InStackPositionNumber=place + 1, TemporalPositionIndex=time + 1)


@pytest.mark.parametrize("describe", [by_dimension, by_index, by_offset, by_delay, in_stack])
def test_time_points_of_an_enhanced_file_are_volumes(describe: Any, tmp_path: Path) -> None:
    series, unused = find_series([enhanced(tmp_path / "a", describe)])
    assert not unused and sorted(contents(series)) == VOLUMES
    assert next(content for one, content in zip(series, contents(series), strict=True) if one.first) == VOLUMES[0]


def test_frames_of_an_enhanced_clip_without_places_are_planes(tmp_path: Path) -> None:
    path = enhanced(tmp_path / "a", lambda group, time, place: None, Modality="XA")
    series, unused = find_series([path])
    assert not unused and contents(series) == [[v] for volume in VOLUMES for v in volume]


def test_a_folder_tells_what_differs_and_takes_the_first_when_asked(tmp_path: Path) -> None:
    cine(tmp_path / "cine", lambda dataset, time, place, number: trigger(dataset, time, place, number))
    uid = generate_uid()
    clip(tmp_path / "clip", Modality="US", SOPClassUID=US, FrameTime=33, PatientID="P2", SeriesInstanceUID=uid)
    every = images(tmp_path)
    assert len(every) == TIMES + 5 and len({sample.key for sample in every}) == TIMES + 5
    assert len({sample.subject for sample in every}) == 2
    said = "8 DICOM images at the same place as others are samples of their own; "
    said += "they differ in FrameTime (5), TriggerTime (3)"
    assert said in every.card.note and any(warning.startswith(said) for warning in every.warnings)
    assert every.name_of(TIMES) == "file 13, frame 1" and every.name_of(TIMES + 4) == "file 13, frame 5"
    first = images(tmp_path, times="first")
    assert [sample.image.pixels.shape for sample in first] == [(1, PLACES, SIZE, SIZE), (1, SIZE, SIZE)]
    assert [int(sample.image.pixels.max()) for sample in first] == [PLACES, 1]
    assert [entry.reason for entry in first.skipped] == ["a later time point of its series (times: first)"] * 8
    assert {sample.key for sample in first} < {sample.key for sample in every}


def test_a_row_of_a_table_names_one_image_and_is_told_of_the_others(tmp_path: Path) -> None:
    cine(tmp_path / "cine", trigger)
    (tmp_path / "table.csv").write_text("path\ncine\n")
    with pytest.raises(
        DataError, match="3 DICOM images in place of one: they differ in TriggerTime; see the option times"
    ):
        images(tmp_path, table=tmp_path / "table.csv").sample(0)
    made = images(tmp_path, table=tmp_path / "table.csv", times="first")
    assert int(made.sample(0).image.pixels.max()) == PLACES
