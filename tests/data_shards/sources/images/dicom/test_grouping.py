from __future__ import annotations

import itertools
import pickle
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from data_shards.sources.images.dicom import Series, find_series, read_series
from data_shards.sources.images.dicom.describe import age_of_patient
from data_shards.support.errors import DataError
from data_shards.vocabulary import Modality
from tests.data_shards.sources.images.dicom.make import DX, SECONDARY_CAPTURE, canonical, header, packaged, save, stack


def brighter(by: int) -> Callable[[int, Dataset], None]:
    def change(_: int, dataset: Dataset) -> None:
        pixels = np.frombuffer(dataset.PixelData, np.uint16) + np.uint16(by)
        dataset.PixelData = pixels.tobytes()

    return change


def offsets(series: list[Series]) -> list[int]:
    """How much brighter than the anatomy each volume is; every volume must be complete."""
    found = []
    for each in series:
        difference = read_series(each).pixels[0].astype(int) - canonical()
        assert difference.min() == difference.max()
        found.append(int(difference.min()))
    return found


@pytest.mark.parametrize(
    "attribute, values",
    [
        ("EchoTime", (2.5, 30, 60)),
        ("TemporalPositionIdentifier", (1, 2, 3)),
        ("DiffusionBValue", (0.0, 500.0, 1000.0)),
        ("AcquisitionNumber", (1, 2, 3)),
        ("ImageType", (["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"], ["DERIVED", "PRIMARY", "M"])),
        ("DiffusionGradientOrientation", ([1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0])),
    ],
)
def test_slices_at_one_place_become_one_volume_for_each_value_of_the_trait(
    attribute: str, values: tuple, tmp_path: Path
) -> None:
    paths = []
    for number, value in enumerate(values):
        paths += stack(tmp_path / str(number), change=brighter(number * 1000), **{attribute: value})
    random.Random(0).shuffle(paths)
    series, unused = find_series(paths)
    assert not unused and sorted(offsets(series)) == [0, 1000, 2000]


def test_two_echoes_at_three_times_are_six_volumes(tmp_path: Path) -> None:
    paths = []
    for number, (echo, time) in enumerate(itertools.product((10, 20), (1, 2, 3))):
        change = brighter(number * 1000)
        paths += stack(tmp_path / str(number), change=change, EchoTime=echo, TemporalPositionIdentifier=time)
    series, unused = find_series(paths)
    assert not unused and offsets(series) == [0, 1000, 2000, 3000, 4000, 5000]


def test_a_time_point_that_was_broken_off_does_not_spoil_the_others(tmp_path: Path) -> None:
    complete: list[Path] = []
    for time in range(3):

        def change(number: int, dataset: Dataset, time: int = time) -> None:
            brighter(time * 1000)(number, dataset)
            dataset.TemporalPositionIdentifier, dataset.AcquisitionTime = time, f"12{time:02d}{number:02d}"

        complete += stack(tmp_path / str(time), change=change)
    series, unused = find_series(complete[:-2])
    assert not unused and offsets(series[:2]) == [0, 1000] and len(series[2].paths) == 3


def test_numbers_that_change_from_slice_to_slice_do_not_split_a_volume(tmp_path: Path) -> None:
    def count(number: int, dataset: Dataset) -> None:
        dataset.AcquisitionNumber, dataset.AcquisitionTime, dataset.EchoTime = number, f"1200{number:02d}", 10 + number

    series, unused = find_series(stack(tmp_path, change=count))
    assert not unused and offsets(series) == [0]


def test_numbers_that_change_from_slice_to_slice_do_not_split_time_points_further(tmp_path: Path) -> None:
    paths: list[Path] = []
    for time in range(2):

        def change(number: int, dataset: Dataset, time: int = time) -> None:
            brighter(time * 1000)(number, dataset)
            dataset.TemporalPositionIdentifier, dataset.FlipAngle = time, 10 + number

        paths += stack(tmp_path / str(time), change=change)
    series, unused = find_series(paths)
    assert not unused and offsets(series) == [0, 1000]


def test_different_images_that_cannot_be_told_apart_are_refused_whole_and_the_rest_is_kept(tmp_path: Path) -> None:
    twice = stack(tmp_path, change=brighter(0))
    again = stack(tmp_path / "b", change=brighter(7))
    moved = [path.rename(tmp_path / f"again{number}.dcm") for number, path in enumerate(again)]
    other = stack(tmp_path / "c", SeriesInstanceUID="1.2.3.5")
    series, unused = find_series([*twice, *moved, *other])
    assert offsets(series) == [0] and [position for position, *_ in unused] == list(range(10))
    assert all("nothing in their headers tells them apart" in reason and damaged for _, reason, damaged in unused)


@pytest.mark.parametrize(
    "attribute, value",
    [
        *(("SeriesInstanceUID", "1.9"), ("StudyInstanceUID", "1.9"), ("FrameOfReferenceUID", "1.9")),
        *(("PatientID", "other"), ("Modality", "CT"), ("SOPClassUID", "1.2.840.10008.5.1.4.1.1.2")),
        *(("ImageOrientationPatient", [1, 0, 0, 0, 0.8, 0.6]), ("PixelSpacing", [1.5, 0.8])),
    ],
)
def test_slices_that_differ_in_kind_are_not_stacked(attribute: str, value: object, tmp_path: Path) -> None:
    def change(number: int, dataset: Dataset) -> None:
        if number >= 3:
            setattr(dataset, attribute, value)

    series, unused = find_series(stack(tmp_path, change=change))
    assert not unused and [len(each.paths) for each in series] == [3, 2]


def test_radiographs_and_captures_of_one_series_stay_single_images(tmp_path: Path) -> None:
    def image(name: str, **attributes: object) -> Path:
        return save(header(np.zeros((4, 4), np.uint8), **attributes), tmp_path / name)

    paths = [image(f"{number}", Modality="DX", SOPClassUID=DX, InstanceNumber=number) for number in range(3)]
    paths += [image(f"c{number}", SOPClassUID=SECONDARY_CAPTURE, InstanceNumber=number) for number in range(2)]
    paths += stack(tmp_path / "placed", Modality="DX", SOPClassUID=DX)
    series, unused = find_series(paths)
    assert not unused and [each.paths for each in series] == [(path,) for path in paths]


@pytest.mark.parametrize(
    "code, modality",
    [
        *(("MR", "mri"), ("CT", "ct"), ("PT", "pet"), ("CR", "xray"), ("DX", "xray"), ("DR", "xray"), ("RG", "xray")),
        *(("MG", "xray"), ("US", "ultrasound"), ("OP", "fundus"), ("OPT", "oct"), ("SM", "histology")),
        ("NM", "unknown"),
    ],
)
def test_modality_is_translated(code: str, modality: str, tmp_path: Path) -> None:
    (series,), _ = find_series([save(header(np.zeros((4, 4), np.uint8), Modality=code), tmp_path / "a")])
    assert series.modality is Modality[modality] and read_series(series).modality is Modality[modality]


@pytest.mark.parametrize(
    "text, years",
    [
        *(("076Y", 76.0), ("018M", 1.5), ("010W", 70 / 365.25), ("005D", 5 / 365.25), ("089Y", 89.0), ("090Y", 90.0)),
        *(("101Y", 90.0), ("42", None), ("", None), ("old", None), ("-01Y", None), ("0x1Y", None)),
    ],
)
def test_age_is_in_years_and_everybody_above_89_is_90(text: str, years: float | None) -> None:
    assert age_of_patient(text) == years


def test_age_and_burned_in_text_come_from_the_headers(tmp_path: Path) -> None:
    def said(number: int, dataset: Dataset) -> None:
        dataset.BurnedInAnnotation = "YES" if number == 3 else "NO"

    (series,), _ = find_series(stack(tmp_path / "a", change=said, PatientAge="095Y"))
    assert series.burned_in is True and series.age_years == 90.0
    (series,), _ = find_series(stack(tmp_path / "b", BurnedInAnnotation="NO"))
    assert series.burned_in is False and series.age_years is None
    paths = stack(tmp_path / "c", change=lambda number, d: number and setattr(d, "BurnedInAnnotation", "NO"))
    assert find_series(paths)[0][0].burned_in is None


def test_series_survives_pickling_and_its_text_hides_patient_and_paths(tmp_path: Path) -> None:
    (series,), _ = find_series(stack(tmp_path / "Doe^Jane", PatientID="SECRET"))
    assert pickle.loads(pickle.dumps(series)) == series and series.patient == "SECRET"
    assert "SECRET" not in repr(series) and "Doe" not in repr(series)


@pytest.mark.parametrize(
    "name, reason",
    [
        *(("dicomdirtests/DICOMDIR", "a DICOMDIR index"), ("test-SR.dcm", "no pixel data (Comprehensive SR Storage)")),
        *(("rtplan.dcm", "no pixel data (RT Plan Storage)"), ("waveform_ecg.dcm", "no pixel data (12-lead ECG")),
        *(("rtdose.dcm", "a radiation dose grid"), ("liver_1frame.dcm", "a segmentation")),
        ("README.txt", "not a readable"),
    ],
)
def test_files_without_an_image_are_reported_with_the_reason(name: str, reason: str) -> None:
    series, ((position, found, damaged),) = find_series([packaged(name)])
    assert not series and position == 0 and found.startswith(reason)
    assert damaged == (name == "README.txt")  # who hands it over takes it for DICOM


def test_localizers_mosaics_parts_of_images_and_tiles_of_slides_are_reported(tmp_path: Path) -> None:
    frames = np.zeros((2, 4, 4), np.uint8)
    cases = [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localizer"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]}, "mosaic"),
        ({"InConcatenationTotalNumber": 2}, "concatenation"),
        ({"TotalPixelMatrixRows": 8, "Modality": "SM"}, "whole slide"),
    ]
    for number, (attributes, reason) in enumerate(cases):
        path = save(header(frames, SOPInstanceUID=generate_uid(), **attributes), tmp_path / str(number))
        series, ((_, found, damaged),) = find_series([path])
        assert not series and reason in found and not damaged


def test_a_file_that_vanished_is_reported_without_its_name(tmp_path: Path) -> None:
    series, ((_, reason, _),) = find_series([tmp_path / "Doe.dcm"])
    assert not series and "cannot be opened" in reason and "Doe" not in reason
    paths = stack(tmp_path / "a")
    (found,), _ = find_series(paths)
    paths[1].unlink()
    with pytest.raises(DataError, match="^slice 2 of 5: cannot be opened") as caught:
        read_series(found)
    assert str(tmp_path) not in str(caught.value)
