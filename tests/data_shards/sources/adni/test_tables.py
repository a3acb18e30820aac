from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from data_shards.support.errors import DataError
from tests.data_shards.sources.adni.export import (
    ADNIMERGE,
    DOWNLOAD,
    EXAMS,
    SCANS,
    SEARCH,
    Scan,
    write_export,
    write_table,
)
from tests.data_shards.sources.adni.reading import labels, read, reasons, same, visits

A = "011_S_0001"
OTHER_NAMES = {
    "Image Data ID": "image_uid", "Subject": "PTID", "Sex": "Gender", "Acq Date": "Study Date",
    "Group": "Research Group", "VISCODE": "VISCODE2",
}  # fmt: skip
ALL_NAMES = {*DOWNLOAD, *ADNIMERGE}


@pytest.mark.parametrize(
    "rename",
    [
        pytest.param({name: name.upper() for name in ALL_NAMES}, id="capitals"),
        pytest.param({name: f" {name} " for name in ALL_NAMES}, id="blanks"),
        pytest.param({name: name.replace(" ", "_") for name in ALL_NAMES}, id="underscores"),
        pytest.param(OTHER_NAMES, id="other names"),
        pytest.param({"Subject": "who", "Image Data ID": "which", "PTID": "who"}, id="unknown names, by their values"),
    ],
)
def test_columns_are_found_by_their_role(export: Path, tmp_path: Path, rename: dict[str, str]) -> None:
    source = read(write_export(tmp_path, rename=rename))
    assert all(same(one, other) for one, other in zip(read(export), source, strict=True))


def test_a_byte_order_mark_another_order_of_columns_and_a_semicolon_change_nothing(
    export: Path, tmp_path: Path
) -> None:
    write_export(tmp_path, header=DOWNLOAD[::-1])
    for path in tmp_path.glob("*.csv"):
        text = path.read_text().replace('","', '";"').replace("\n", "\r\n\r\n")
        path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert all(same(one, other) for one, other in zip(read(export), read(tmp_path), strict=True))


def test_several_collections_of_both_headers_are_read_together(export: Path, tmp_path: Path) -> None:
    write_export(tmp_path, header=None)
    rows = [scan.cells() for scan in SCANS if scan.in_table]
    write_table(tmp_path / "ADNI" / "one.csv", DOWNLOAD, rows[:9])
    write_table(tmp_path / "two.csv", SEARCH, rows[5:])  # rows of both are no contradiction
    assert labels(read(tmp_path)) == labels(read(export))


def test_tables_can_be_named_and_may_lie_elsewhere(export: Path, tmp_path: Path) -> None:
    images = write_export(tmp_path / "images", exams=None, header=None)
    rows = [scan.cells() for scan in SCANS if scan.in_table]
    write_table(tmp_path / "tables" / "collection.csv", DOWNLOAD, rows)
    write_table(tmp_path / "study.csv", ADNIMERGE, EXAMS)
    assert [warning.partition(":")[0] for warning in read(images, label="none").warnings] == [
        "no collection table",
        "no study table (ADNIMERGE)",
    ]
    for options in (
        {"tables": tmp_path / "tables", "study_table": tmp_path / "study.csv"},
        {"tables": [tmp_path / "tables" / "collection.csv", tmp_path / "study.csv"]},
    ):
        source = read(images, **options)
        assert not source.warnings
        assert all(same(one, other) for one, other in zip(read(export), source, strict=True))
    with pytest.raises(DataError, match=r"no CSV file in this folder"):
        read(images, tables=images)
    with pytest.raises(DataError, match=r"absent\.csv: cannot be opened"):
        read(images, tables=tmp_path / "absent.csv")


def test_the_study_table_is_known_by_its_columns_too(export: Path, tmp_path: Path) -> None:
    write_export(tmp_path)
    (tmp_path / "ADNIMERGE_01Jan2025.csv").rename(tmp_path / "visits.csv")
    assert labels(read(tmp_path)) == labels(read(export))


def test_two_study_tables_are_an_error_unless_one_is_named(export: Path, tmp_path: Path) -> None:
    write_export(tmp_path)
    write_table(tmp_path / "ADNIMERGE.csv", ADNIMERGE, EXAMS[:2])
    with pytest.raises(DataError, match=r"2 study tables: file \d+ and file \d+; study_table says which"):
        read(tmp_path)
    source = read(tmp_path, study_table=tmp_path / "." / "ADNIMERGE_01Jan2025.csv")
    assert labels(source) == labels(read(export))
    assert reasons(source) - reasons(read(export)) == {"another study table is used": 1}


def test_rids_do_where_there_are_no_ptids(export: Path, tmp_path: Path) -> None:
    write_export(tmp_path, exams=None)
    write_table(tmp_path / "ADNIMERGE.csv", [name for name in ADNIMERGE if name != "PTID"], EXAMS)
    assert labels(read(tmp_path)) == labels(read(export))


def test_other_tables_are_left_alone_and_reported(export: Path, tmp_path: Path) -> None:
    write_export(tmp_path)
    (tmp_path / "MPRAGEMETA.csv").write_text(
        '"SubjectID","Visit","Sequence","ImageUID"\n"011_S_0001","sc","MPR","1001"\n'
    )
    (tmp_path / "ADNIMERGE_DICT.csv").write_text("FLDNAME,TBLNAME,TEXT\nDX,ADNIMERGE,Diagnosis\n")
    source = read(tmp_path)
    assert labels(source) == labels(read(export))
    assert reasons(source) - reasons(read(export)) == {"neither a collection nor a study table": 2}


def test_rows_that_cannot_be_used_are_reported_by_their_number(tmp_path: Path) -> None:
    write_export(tmp_path, [Scan(1, A, "bl", "2006-01-02")])
    with (tmp_path / "mini_3_21_2015.csv").open("a") as file:
        file.write('"I5","CANARY"\n')
        file.write('"I6","CANARY","CN","F","70","bl","MRI","MPR","Original","1/2/2006"\n')
        file.write('"CANARY","011_S_0001","CN","F","70","bl","MRI","MPR","Original","1/2/2006"\n')
    with (tmp_path / "ADNIMERGE_01Jan2025.csv").open("a") as file:
        file.write('"1","CANARY"\n')
        file.write(",".join(["CANARY"] * len(ADNIMERGE)) + "\n")
    items = {entry.item: entry.reason for entry in read(tmp_path).skipped}
    assert items == {
        "row 13 of file 2": "more or fewer cells than the header",
        "row 14 of file 2": "no subject identifier that can be read",
        "row 3 of file 3": "more or fewer cells than the header",
        "row 4 of file 3": "no subject identifier that can be read",
        "row 5 of file 3": "no image identifier that can be read",
    }


def test_a_table_that_gives_an_image_to_another_subject_is_not_believed(tmp_path: Path) -> None:
    scans = [Scan(1, A, "bl", "2006-01-02"), Scan(2, A, "m06", "2006-07-02")]
    write_export(tmp_path, scans)
    path = tmp_path / "mini_3_21_2015.csv"
    path.write_text(path.read_text().replace('"I2","011_S_0001"', '"I2","022_S_0002"'))
    source = read(tmp_path)
    assert visits(source) == [(A, "m000")]
    assert reasons(source) == {"the collection table gives this image to another subject": 1}


@pytest.mark.parametrize(
    "content, problem",
    [
        (b"", "the table is empty"),
        (b"\n\n", "the table is empty"),
        (b'"a","b"\n"1","2', "row 2 is broken"),
        (b'a,b\n1,"' + b"x" * 200_000 + b'"\n', "row 2 is broken"),
        (b"a,b\n1,\0\n", "line 2 has a NUL byte"),
    ],
)
def test_a_file_that_is_no_table_is_one_clear_error(tmp_path: Path, content: bytes, problem: str) -> None:
    write_export(tmp_path, [Scan(1, A, "bl", "2006-01-02")])
    (tmp_path / "zz.csv").write_bytes(content)
    with pytest.raises(DataError, match=rf"^file 4: {problem}[^\n]*$"):
        read(tmp_path)


def test_a_named_table_of_another_kind_says_what_it_lacks(tmp_path: Path) -> None:
    write_export(tmp_path, [Scan(1, A, "bl", "2006-01-02")])
    table = tmp_path / "mini_3_21_2015.csv"
    with pytest.raises(DataError, match=r"a study table has no column DX or DXBL$"):
        read(tmp_path, study_table=table)


@pytest.mark.parametrize(
    "name, mark, encoding", [(".tsv", "\t", "utf-16"), (".csv", ";", "cp1252"), (".csv", ",", "utf-8")]
)
def test_tables_that_a_spreadsheet_has_saved_again_are_the_same(
    export: Path, tmp_path: Path, name: str, mark: str, encoding: str
) -> None:
    write_export(tmp_path)
    for path in tmp_path.glob("*.csv"):
        with path.open(newline="") as file:
            rows = list(csv.reader(file))
        path.unlink()
        with path.with_suffix(name).open("w", newline="", encoding=encoding) as file:
            for row in rows:
                comma = [re.sub(r"^(-?\d+)\.(\d+)$", r"\1,\2", cell) if mark == ";" else cell for cell in row]
                csv.writer(file, delimiter=mark).writerow(comma)
    source = read(tmp_path)
    assert all(same(one, other) for one, other in zip(read(export), source, strict=True))


def test_ages_above_89_are_90_whatever_the_table_writes(tmp_path: Path) -> None:
    for place, age in enumerate(("91.2", "90+", "093Y", "89.5")):
        folder = tmp_path / str(place)
        write_export(folder, [Scan(1, A, "bl", "2006-01-02")], exams=None)
        path = folder / "mini_3_21_2015.csv"
        rows = [row.split(",") for row in path.read_text().splitlines()]
        column = rows[0].index('"Age"')
        rows[1][column] = f'"{age}"'
        path.write_text("\n".join(",".join(row) for row in rows))
        (sample,) = read(folder, label="age")
        assert sample.attributes["age_years"] == 90 and sample.label is not None and sample.label.tolist() == [90]
