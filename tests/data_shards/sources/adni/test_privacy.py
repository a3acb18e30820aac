from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest

from data_shards.sources.adni.source import ADNI
from data_shards.support.errors import DataError
from data_shards.writing.writer import write_dataset
from tests.data_shards.sources.adni.export import SCANS, write_export
from tests.data_shards.sources.adni.reading import SALT, read

# What tells who somebody is, or what could be looked up at ADNI: identifiers, words of descriptions, days, free text.
_WORDS = (
    "MPR",
    "GradWarp",
    "Uniform",
    "MP-RAGE",
    "Localizer",
    "Siz",
    "LMCI",
    "SMC",
    "CANARY",
    "08_00_00",
    "_Br_",
    SALT,
)
IDENTIFIERS = tuple(
    {scan.ptid for scan in SCANS}
    | {f"I{scan.number}" for scan in SCANS}
    | {f"S{scan.number + 7}" for scan in SCANS}
    | {scan.date for scan in SCANS}
    | {scan.date.replace("-", "") for scan in SCANS if scan.dicom}
    | {scan.cells()["Acq Date"] for scan in SCANS}
    | set(_WORDS)
)


def found_in(content: bytes) -> list[str]:
    return [word for word in IDENTIFIERS if word.encode() in content]


def private(source: ADNI) -> bytes:
    """Everything that a source says, beside ``origin``."""
    parts = [
        repr(source.skipped),
        repr(source.card),
        repr(source.warnings),
        source.card.model_dump_json(),
        repr(source),
    ]
    parts += [source.name_of(position) for position in range(len(source))]
    parts += [repr(vars(source)["_items"])]
    return "\n".join(parts).encode()


def test_the_search_finds_every_identifier_in_the_export_itself(export: Path) -> None:
    content = b"".join(path.read_bytes() + str(path).encode() for path in export.rglob("*") if path.is_file())
    absent = {f"S{scan.number + 7}" for scan in SCANS if not scan.in_tree} | {SALT, "2006-03-04", "3/3/2006"}
    assert set(IDENTIFIERS) - set(found_in(content)) == absent


@pytest.mark.parametrize("label", ["diagnosis", "age", "sex", "none"])
def test_no_identifier_gets_out(export: Path, label: str) -> None:
    source = read(export, label=label)
    assert found_in(private(source)) == []
    for sample in source:
        assert found_in(pickle.dumps(sample)) == []
        assert sample.images and sample.attributes
    assert all(re.fullmatch("[0-9a-f]{16}", entry.subject) for entry in source.skipped)


def test_the_hashes_need_the_salt(export: Path) -> None:
    source, other = read(export), ADNI(read(export)._config, salt="another salt of the tests")
    assert {sample.subject for sample in source}.isdisjoint(sample.subject for sample in other)
    assert {sample.key for sample in source}.isdisjoint(sample.key for sample in other)
    assert source.card.source_checksum != other.card.source_checksum


def test_no_message_of_a_damaged_archive_names_anybody(tmp_path: Path) -> None:
    """Every image is cut short or filled with text, one after another."""
    root = write_export(tmp_path)
    source = read(root, label="none")
    for scan in SCANS:
        for file in (root / scan.folder).glob("*"):
            file.write_bytes(file.read_bytes()[:200] if scan.number % 2 else b"CANARY 011_S_0001" * 50)
    for position in range(len(source)):
        with pytest.raises(DataError) as caught:
            source.sample(position)
        assert found_in(str(caught.value).encode()) == []
        assert str(root) not in str(caught.value)
        assert caught.value.__cause__ is None


def test_the_shards_hold_no_identifier(export: Path, tmp_path: Path) -> None:
    source = read(export, label="none")
    manifest = write_dataset(source, tmp_path / "shards")
    assert sum(entry.samples for entry in manifest.splits.values()) == len(source)
    files = [path for path in (tmp_path / "shards").rglob("*") if path.is_file()]
    assert len(files) >= 3
    for path in files:
        assert found_in(path.read_bytes()) == []
        assert found_in(path.name.encode()) == []
