"""The journal of a build: it only grows, costs the same for every shard, and survives a line that is cut off."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_shards.format.manifest import read_manifest
from data_shards.sample import Image, Sample
from data_shards.sources.base import Skipped
from data_shards.support.errors import DataError, MedformerError
from data_shards.vocabulary import Organ
from data_shards.writing import build_folder, workers
from data_shards.writing.build_folder import BuildFolder
from data_shards.writing.journal import Journal
from data_shards.writing.writer import write_dataset
from tests.data_shards.made_sources import Listed, card
from tests.data_shards.writing.test_writer import Slow, hashes

RECORDS: list[dict[str, Any]] = [{"number": number, "text": "ä\n" * number} for number in range(5)]


def written(path: Path) -> list[int]:
    """A journal of all records; where each of its lines ends."""
    journal = Journal.begun(path, RECORDS[0])
    ends = [path.stat().st_size]
    for record in RECORDS[1:]:
        journal.add(record)
        ends.append(path.stat().st_size)
    return ends


def test_records_come_back_and_lines_are_only_appended(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    ends = written(path)
    before = path.read_bytes()
    journal = Journal.read(path)
    assert journal.records == RECORDS
    journal.add({"number": 5})
    assert path.read_bytes()[: ends[-1]] == before
    assert Journal.read(path).records == [*RECORDS, {"number": 5}]


def test_a_last_line_that_was_cut_off_anywhere_is_dropped_and_written_over(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    *_, start, end = written(path)
    whole = path.read_bytes()
    for cut in range(start, end):
        path.write_bytes(whole[:cut])
        journal = Journal.read(path)
        assert journal.records == RECORDS[:-1]
        journal.add({"new": True})
        assert Journal.read(path).records == [*RECORDS[:-1], {"new": True}]
    path.write_bytes(whole[:start] + bytes(end - start - 1) + b"\n")  # the size was on the disk, the content not
    assert Journal.read(path).records == RECORDS[:-1]


def test_a_damaged_line_before_the_last_is_no_cut(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    _, second, *_ = written(path)
    content = bytearray(path.read_bytes())
    content[second - 3] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"journal: line 2 is damaged; --restart"):
        Journal.read(path)


def test_a_line_of_the_journal_is_as_long_for_the_last_shard_as_for_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    listed: list[Path] = []
    commit = BuildFolder.commit
    iterdir = Path.iterdir

    def watched(folder: BuildFolder, record: dict[str, Any]) -> None:
        commit(folder, record)
        sizes.append((folder.path / build_folder.JOURNAL).stat().st_size)

    monkeypatch.setattr(workers, "_CHUNK_SAMPLES", 1)
    monkeypatch.setattr(BuildFolder, "commit", watched)
    monkeypatch.setattr(Path, "iterdir", lambda path: listed.append(path) or iterdir(path))  # type: ignore[func-returns-value]
    pixels = np.zeros((1, 4, 4), np.uint8)
    samples = [
        Sample(f"{number:05d}", {"image": Image(pixels)}, Organ.brain, f"s{number:05d}", "train")
        for number in range(300)
    ]
    write_dataset(Listed(samples, card()), tmp_path / "toy", shard_bytes=1)
    lines = np.diff(sizes[:-1])  # the last one names the files of the whole
    assert len(lines) > 290 and lines.max() - lines[10:].min() < 20
    assert len(listed) < 10, "the folder is listed for every shard"


def test_a_build_that_is_cut_off_in_the_middle_of_a_line_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dataset(Slow(), tmp_path / "whole", shard_bytes=100_000)
    add = Journal.add

    def torn(journal: Journal, record: dict[str, Any]) -> None:
        add(journal, record)
        if record["position"] > 600:
            os.truncate(journal.path, journal.path.stat().st_size - 7)
            raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "add", torn)
    with pytest.raises(KeyboardInterrupt):
        write_dataset(Slow(), tmp_path / "cut", shard_bytes=100_000)
    monkeypatch.undo()
    journal = Journal.read(tmp_path / ".cut.building" / build_folder.JOURNAL)
    assert [record["position"] for record in journal.records[1:]] == [512]
    write_dataset(Slow(), tmp_path / "cut", shard_bytes=100_000)
    assert hashes(tmp_path / "cut") == hashes(tmp_path / "whole")


def test_an_unfinished_build_of_an_earlier_version_is_refused_until_it_is_thrown_away(tmp_path: Path) -> None:
    building = tmp_path / ".toy.building"
    building.mkdir()
    (building / "build.json").write_text(json.dumps({"fingerprint": "0", "note": {"position": 3}}))
    with pytest.raises(MedformerError, match=r"an earlier version of Medformer.*--restart"):
        write_dataset(Slow(samples=60), tmp_path / "toy")
    assert (building / "build.json").exists()
    write_dataset(Slow(samples=60), tmp_path / "toy", restart=True)
    assert not building.exists() and not (tmp_path / "toy" / "build.json").exists()


class Listing(Slow):
    """What the listing has left out comes before what cannot be read."""

    skipped = (Skipped("row 5 of the table", "no image", "00ff"),)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_build_that_stopped_at_an_error_goes_on_leaving_it_out(tmp_path: Path, workers: int) -> None:
    damaged = Listing(damaged=(1300, 1350))
    straight = write_dataset(damaged, tmp_path / "straight", shard_bytes=100_000, skip_errors=True)
    read: list[int] = []

    class Watched(Listing):
        def sample(self, position: int) -> Sample:
            read.append(position)
            return super().sample(position)

    with pytest.raises(DataError, match="item 1300"):
        write_dataset(damaged, tmp_path / "toy", shard_bytes=100_000, workers=workers)
    write_dataset(Watched(damaged=(1300, 1350)), tmp_path / "toy", shard_bytes=100_000, skip_errors=True)
    assert min(read[1:]) >= 512, "it began anew"
    assert hashes(tmp_path / "toy") == hashes(tmp_path / "straight")
    assert read_manifest(tmp_path / "toy") == straight and straight.skipped == 3


class Refusing(Slow):
    """A source that ends the build, as an interrupt would."""

    def sample(self, position: int) -> Sample:
        if position == 1300:
            raise KeyboardInterrupt
        return super().sample(position)


def test_a_build_that_left_out_goes_on_stopping_only_where_nothing_was_left_out(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_dataset(Refusing(), tmp_path / "toy", shard_bytes=100_000, skip_errors=True)
    write_dataset(Slow(), tmp_path / "toy", shard_bytes=100_000)
    write_dataset(Slow(), tmp_path / "straight", shard_bytes=100_000)
    assert hashes(tmp_path / "toy") == hashes(tmp_path / "straight")

    with pytest.raises(KeyboardInterrupt):
        write_dataset(Refusing(damaged=(700,)), tmp_path / "other", shard_bytes=100_000, skip_errors=True)
    with pytest.raises(DataError, match=r"item 700: cannot be read \(ValueError\) .*--on-error skip goes on"):
        write_dataset(Slow(damaged=(700,)), tmp_path / "other", shard_bytes=100_000)
    write_dataset(Slow(damaged=(700,)), tmp_path / "other", shard_bytes=100_000, skip_errors=True)
    write_dataset(Slow(damaged=(700,)), tmp_path / "skipped", shard_bytes=100_000, skip_errors=True)
    assert hashes(tmp_path / "other") == hashes(tmp_path / "skipped")
