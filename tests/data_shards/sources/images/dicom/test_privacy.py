"""Marks are planted wherever a file can hold text; none of them may come out again by any way."""

from __future__ import annotations

import logging
import pickle
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.datadict import DicomDictionary
from pydicom.dataset import Dataset

from data_shards.sources.images.dicom import find_series, is_dicom, parsing, read_series
from data_shards.support.errors import DataError
from tests.data_shards.sources.images.dicom.make import header, item, save, stack

# pydicom warns while the marks are written.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

MARK, UID_MARK, NUMBER_MARK = "ZyXcanary", "2.98765.4321", "987654321"
MARKS = [mark.encode() for mark in (MARK, MARK.upper(), UID_MARK, NUMBER_MARK, "19870605", "DoeJane")]
PLANTED = {
    **dict.fromkeys(("LO", "SH", "ST", "LT", "UT", "UC", "UR", "PN", "AE"), MARK),
    **dict.fromkeys(("DA", "DT"), "19870605"),
    **dict.fromkeys(("IS", "DS"), NUMBER_MARK),
    **dict.fromkeys(("OB", "UN"), MARK.encode() + b" "),
    "UI": UID_MARK,
    "CS": MARK.upper(),
}
NEEDED = {name for name in (*parsing._HEADER, *parsing._PALETTE) if name not in ("PatientID", "StudyInstanceUID")}
Ear = Callable[[Sequence[Path]], tuple[int, bytes]]


def mark_everything(dataset: Dataset, keep: set[str]) -> int:
    """Plant marks into every attribute of the dictionary that can hold text, and into private ones; how many."""
    count = 0
    for tag, (vr, _, _, _, keyword) in DicomDictionary.items():
        if vr in PLANTED and keyword and keyword not in keep and tag >> 16 > 2 and tag >> 16 < 0x7FE0:
            dataset.add_new(tag, vr, PLANTED[vr])
            count += 1
    block = dataset.private_block(0x0009, MARK, create=True)
    for number, vr in enumerate(("LO", "PN", "UT", "OB", "UN")):
        block.add_new(number, vr, PLANTED[vr])
    dataset.ReferencedStudySequence = item(PatientName=MARK, ReferencedSOPInstanceUID=UID_MARK)
    return count


@pytest.fixture
def hear(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Ear:
    """Do all there is to do with files; how many images there were, and everything that was said meanwhile."""

    def listen(paths: Sequence[Path]) -> tuple[int, bytes]:
        capfd.readouterr()
        caplog.clear()
        loud = (caplog.at_level(logging.DEBUG), caplog.at_level(logging.DEBUG, "pydicom"))
        with loud[0], loud[1], warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            images, said = everything(paths)
        said += [caplog.text.encode(), *(stream.encode() for stream in capfd.readouterr())]
        return images, b"\n".join([*said, *(str(warning.message).encode() for warning in warned)])

    return listen


def everything(paths: Sequence[Path]) -> tuple[int, list[bytes]]:
    images, said = 0, []
    assert all(map(is_dicom, paths))
    series, unused = find_series(paths)
    said += [reason.encode() for _, reason, _ in unused] + [repr(each).encode() for each in series]
    for each in series:
        for voi in (False, True):
            try:
                image = read_series(each, voi=voi)
                said += [pickle.dumps(image), repr(image).encode()]
                images += 1
            except DataError as error:
                said += ["".join(traceback.format_exception(error)).encode(), pickle.dumps(error)]
    return images, said


def check(said: bytes) -> None:
    for mark in MARKS:
        assert mark not in said, said[max(said.index(mark) - 200, 0) :][:400]


def test_nothing_that_a_healthy_series_says_about_its_patient_comes_out(hear: Ear, tmp_path: Path) -> None:
    counts = []
    paths = stack(tmp_path / "DoeJane", change=lambda _, dataset: counts.append(mark_everything(dataset, NEEDED)))
    assert min(counts) > 2000 and MARK.encode() in paths[0].read_bytes()
    images, said = hear(paths)
    assert images == 2
    check(said)


@pytest.mark.parametrize("keyword", sorted(NEEDED))
def test_no_message_quotes_what_a_damaged_attribute_holds(keyword: str, hear: Ear, tmp_path: Path) -> None:
    paths = stack(tmp_path / "DoeJane")[:2]
    for path in paths:
        dataset = pydicom.dcmread(path)
        dataset.add_new(keyword, "LO", MARK)
        # Written as what it should be, so that pydicom tries to convert the text.
        dataset[keyword].VR = "UN" if keyword.endswith("Sequence") else "LO"
        if keyword.endswith("Sequence"):
            dataset[keyword]._value = MARK.encode()
        save(dataset, path)
        content = path.read_bytes()
        vr = pydicom.datadict.dictionary_VR(keyword).split(" ")[0].encode()
        if vr in (b"DS", b"IS", b"US", b"CS", b"UI", b"AS", b"TM", b"FD"):
            path.write_bytes(content.replace(b"LO\x0a\0" + MARK.encode(), vr + b"\x0a\0" + MARK.encode()))
    check(hear(paths)[1])


@pytest.mark.parametrize("damage", ["cut", "flip", "syntax", "charset"])
def test_damaged_files_do_not_make_libraries_talk(damage: str, hear: Ear, tmp_path: Path) -> None:
    paths = stack(tmp_path / "DoeJane", change=lambda _, dataset: mark_everything(dataset, NEEDED) and None)
    random = np.random.default_rng(0)
    for number, path in enumerate(paths):
        content = bytearray(path.read_bytes())
        if damage == "cut":
            del content[len(content) * (number + 1) // 7 :]
        elif damage == "flip":
            for place in random.integers(400, len(content), 60):
                content[place] ^= 1 << int(random.integers(8))
        elif damage == "syntax":
            content = content.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.5\0", 1)
        else:
            content = content.replace(b"ZyXcanary ", b"\xff\xfe\x1b$BZyXcan"[:10])
        path.write_bytes(content)
    check(hear(paths)[1])


def test_pydicom_itself_would_have_talked(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    path = stack(tmp_path, SpecificCharacterSet="ISO_IR 100")[0]
    path.write_bytes(path.read_bytes().replace(b"ISO_IR 100", MARK.encode() + b" "))
    with pytest.warns(UserWarning, match=MARK):
        _ = pydicom.dcmread(path).PatientID
    assert MARK in caplog.text


def test_levels_and_filters_are_put_back(tmp_path: Path) -> None:
    logger, filters = logging.getLogger("pydicom"), list(warnings.filters)
    logger.setLevel(logging.INFO)
    find_series([save(header(np.zeros((4, 4), np.uint8)), tmp_path / "a")])
    assert logger.level == logging.INFO and list(warnings.filters) == filters
    logger.setLevel(logging.NOTSET)
