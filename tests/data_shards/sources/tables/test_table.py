"""Tables: which column means what, and every way in which one can be broken."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from data_shards.sources.tables import csv_file
from data_shards.sources.tables.roles import Columns, has_columns, read_table
from data_shards.support.errors import DataError

SECRET = "DoeJane"


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_columns_are_found_by_the_names_of_their_roles(tmp_path: Path):
    path = written(tmp_path / "t.csv", "subject,label, path ,split,other\n p1 ,0,a.png, train,x\np2,1,b.png,test,y\n")
    table = read_table(path, Columns())
    assert [row.number for row in table.rows] == [2, 3] and table.label_names == ("label",)
    assert table.rows[0].cells == {"path": "a.png", "subject": "p1", "split": "train"}
    assert table.rows[1].label == ("1",) and table.rows[1].name == "row 3 of the table"


def test_columns_are_found_by_the_names_that_the_user_gives(tmp_path: Path):
    path = written(tmp_path / "t.csv", "file,who,path,d1,d2,years\na.png,p1,wrong,0,1,33\n")
    columns = Columns(path="file", subject="who", label=("d1", "d2"), attributes={"age_years": "years"})
    table = read_table(path, columns)
    assert table.rows[0].cells == {"path": "a.png", "subject": "p1"}
    assert table.rows[0].label == ("0", "1") and table.label_names == ("d1", "d2")
    assert table.rows[0].attributes == {"age_years": "33"}


def test_columns_to_group_by_are_text_under_the_names_that_were_asked_for(tmp_path: Path):
    path = written(tmp_path / "t.csv", "path,Site,patient_age,Patient Name\na.png,north,93,x\nb.png,,40,y\n")
    rows = read_table(path, Columns(groups=("site", "patient age"))).rows
    assert [row.groups for row in rows] == [{"site": "north", "patient age": "90"}, {"site": "", "patient age": "40"}]
    assert Columns(groups="site").groups == ("site",)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="column 'Patient Name' for patient name is the number or name of a person"):
        read_table(path, Columns(groups=("patient name",)))


def test_a_column_that_is_named_for_one_role_has_no_other(tmp_path: Path):
    path = written(tmp_path / "t.csv", "Image,Grade,Study\na.png,1,x\n")
    table = read_table(path, Columns(path="Image", label=("Grade",), subject="Study"))
    assert table.rows[0].cells == {"path": "a.png", "subject": "x"}
    assert read_table(path, Columns(path="Image")).rows[0].cells == {"path": "a.png", "study": "x"}


def test_a_table_says_which_columns_it_has(tmp_path: Path):
    path = written(tmp_path / "t.csv", "Patient ID;label\n1;2\n")
    assert has_columns(path, ["patient_id", "label"]) and has_columns(path, [])
    assert not has_columns(path, ["label", "grade"])
    with pytest.raises(DataError, match=r"no\.csv: cannot be opened"):
        has_columns(tmp_path / "no.csv", ["label"])


def test_one_label_column_may_be_given_as_a_word():
    assert Columns(label="grade").label == ("grade",)  # type: ignore[arg-type]


@pytest.mark.parametrize("mark", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_separators_line_ends_and_a_byte_order_mark_are_understood(tmp_path: Path, mark: str, end: str, start: str):
    text = start + end.join((mark.join(("path", "label")), mark.join(("a.png", "1")), "", mark.join(("b.png", "0"))))
    table = read_table(written(tmp_path / "t.csv", text), Columns())
    assert [(row.number, row.cells["path"], row.label) for row in table.rows] == [
        (2, "a.png", ("1",)),
        (4, "b.png", ("0",)),
    ]


def test_quoted_cells_hold_separators_quotes_and_line_ends(tmp_path: Path):
    path = written(tmp_path / "t.csv", 'path,subject\n"a,1.png","say ""x""\nline"\nb.png,p\n')
    rows = read_table(path, Columns()).rows
    assert rows[0].cells == {"path": "a,1.png", "subject": 'say "x"\nline'} and rows[1].number == 3


@pytest.mark.parametrize(
    "columns, message",
    [
        (Columns(path="Pathh"), "no column 'Pathh' for the role path; did you mean 'path'"),
        (Columns(subject="pateint"), "no column 'pateint' for the role subject; did you mean 'patient'"),
        (Columns(label=("grades",)), "no column 'grades' for the role label; did you mean 'grade'"),
        (Columns(attributes={"age": "agee"}), "no column 'agee' for the role age"),
        (Columns(study="zzz"), "no column 'zzz' for the role study among the 4 of the header"),
    ],
)
def test_a_column_that_is_missing_is_named_with_the_nearest_one(tmp_path: Path, columns: Columns, message: str):
    path = written(tmp_path / "t.csv", "path,patient,grade,aged\na.png,p,0,4\n")
    with pytest.raises(DataError, match=message):
        read_table(path, columns)


def test_a_table_without_a_header_does_not_tell_its_first_row(tmp_path: Path):
    path = written(tmp_path / "t.csv", f"a.png,{SECRET}\nb.png,Other\n")
    with pytest.raises(DataError) as caught:
        read_table(path, Columns())
    assert "no column 'path'" in str(caught.value) and SECRET not in str(caught.value)


def test_an_unknown_role_is_refused():
    with pytest.raises(ValidationError, match="subjet"):
        Columns.model_validate({"subjet": "x"})


BROKEN = {
    "empty file": (b"", "the table is empty"),
    "blank lines": (b"\n\n\r\n", "the table is empty"),
    "empty cells": (b",,\n;;\n", "the table is empty"),
    "many blank lines": (b"\n" * 5000 + b"path\na.png\n", "its first 1000 lines are empty"),
    "header alone": (b"path,label\n", "a header and no rows"),
    "short row": (b"path,subject\na.png,p\nDoeJane\n", "row 3 has 1 cells, the header 2"),
    "long row": (b"path,subject\na.png,p\n\nDoeJane,DoeJane,x\n", "row 4 has 3 cells, the header 2"),
    "NUL": (b"path,subject\na.png,p\nDoeJane\0,x\n", "line 3 has a NUL byte"),
    "NUL in the header": (b"path,DoeJane\0\na.png,p\n", "line 1 has a NUL byte"),
    "UTF-16 without mark": ("path,subject\na.png,DoeJane\n".encode("utf-16-le"), "line 1 has a NUL byte"),
    "cut UTF-16": ("path,subject\na.png,DoeJane\n".encode("utf-16")[:-1], "no text in utf-16"),
    "open quote": (b'path,subject\na.png,p\n"DoeJane,x\ny,z\n', "row 3 is broken"),
    "quote inside": (b'path,subject\na.png,"DoeJane"x\n', "row 2 is broken"),
    "huge cell": (b"path,subject\na.png," + b"DoeJane" * 30_000 + b"\n", "row 2 is broken"),
    "huge line": (b"path,subject\na.png,p\n" + b"DoeJane," * 200_000 + b"\n", "line 3 has more than"),
    "huge quoted cell": (b'path,subject\na.png,"' + b"DoeJane\n" * 30_000 + b'"\n', "row 2 is broken"),
    "column twice": (b"path,subject,subject\na.png,DoeJane,DoeJane\n", "column 'subject' is there 2 times"),
    "path twice": (b"path, path\na.png,DoeJane\n", "column 'path' is there 2 times"),
    "column in two spellings": (b"path,Subject,SUBJECT\na.png,DoeJane,x\n", "column 'subject' is there 2 times"),
    "Excel": (b"PK\x03\x04DoeJane", "an Excel or LibreOffice workbook: save its sheet as CSV UTF-8"),
    "old Excel": (b"\xd0\xcf\x11\xe0DoeJane", "an Excel workbook: save its sheet as CSV UTF-8"),
    "gzip": (b"\x1f\x8bDoeJane", "compressed with gzip"),
    "Parquet": (b"PAR1DoeJane", "a Parquet file"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_table_is_refused_with_the_number_of_the_row_and_without_its_text(tmp_path: Path, name: str):
    content, message = BROKEN[name]
    with pytest.raises(DataError, match=message) as caught:
        read_table(written(tmp_path / "t.csv", content), Columns())
    assert SECRET not in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_table_and_a_folder_in_its_place_are_refused(tmp_path: Path):
    for path, message in ((tmp_path / "none.csv", "No such file"), (tmp_path, "regular file|directory")):
        with pytest.raises(DataError, match=message):
            read_table(path, Columns())


def test_an_unused_column_may_be_there_twice(tmp_path: Path):
    path = written(tmp_path / "t.csv", "path,note,note\na.png,x,y\n")
    assert read_table(path, Columns()).rows[0].cells == {"path": "a.png"}


FORMS = {
    "comma": "path,label\na.png,1\nb.png,0\n",
    "semicolon": "path;label\na.png;1\nb.png;0\n",
    "tab": "path\tlabel\na.png\t1\nb.png\t0\n",
    "sep": "sep=|\npath|label\na.png|1\nb.png|0\n",
    "quoted sep": '"sep=;"\r\npath;label\r\na.png;1\r\nb.png;0\r\n',
    "carriage returns": "path,label\ra.png,1\rb.png,0\r",
    "index of pandas": ",path,label\n0,a.png,1\n1,b.png,0\n",
    "empty rows": "\n,\npath,label\n\na.png,1\n,\nb.png,0\n,\n,\n",
    "empty cells behind": "path,label\na.png,1,,\nb.png,0\n",
    "empty columns behind": "path,label,,\na.png,1,,\nb.png,0,,\n",
    "capitals and blanks": " Path , LABEL\na.png , 1\n b.png,0 \n",
    "quotes after blanks": '"path", "label"\n"a.png", "1"\n"b.png", "0"\n',
    "the other name of the file": "file,label\na.png,1\nb.png,0\n",
    "a comma in a quoted name": '"note, long";path;label\nx;a.png;1\ny;b.png;0\n',
    "lines in the first name": '"note,\nin\n""lines""";path;label\nx;a.png;1\ny;b.png;0\n',
    "lines in a later name": 'path;"note,\n,,";label\na.png;x;1\nb.png;y;0\n',
    "lines in a name after sep": 'sep=;\n"a,\n,,b";path;label\nx;a.png;1\ny;b.png;0\n',
    "a quote inside a name": 'path;label;size in "\na.png;1;3\nb.png;0;4\n',
    "more columns": "id,path,note,label,when\n7,a.png,x,1,2001-02-03\n8,b.png,y,0,\n",
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"])
@pytest.mark.parametrize("form", FORMS)
def test_every_dialect_and_encoding_gives_the_same_rows(tmp_path: Path, form: str, encoding: str):
    mark = "\ufeff" if encoding in ("utf-16-le", "utf-16-be") else ""
    table = read_table(written(tmp_path / "t.csv", (mark + FORMS[form]).encode(encoding)), Columns())
    assert [(row.cells["path"], row.label) for row in table.rows] == [("a.png", ("1",)), ("b.png", ("0",))]
    assert table.warnings == ()


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1"])
def test_letters_of_windows_are_read_and_pointed_out(tmp_path: Path, encoding: str):
    table = read_table(written(tmp_path / "t.csv", "path,label\nMüller.png,bösartig\n".encode(encoding)), Columns())
    assert (table.rows[0].cells["path"], table.rows[0].label) == ("Müller.png", ("bösartig",))
    assert len(table.warnings) == 1 and "read as Windows-1252" in table.warnings[0]


def test_numbers_of_rows_are_those_of_a_spreadsheet(tmp_path: Path):
    text = 'sep=;\n\npath;label\na.png;"two\nlines"\n;\nb.png;0\n'
    assert [row.number for row in read_table(written(tmp_path / "t.csv", text), Columns()).rows] == [4, 6]


def test_a_table_of_absurd_size_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = written(tmp_path / "t.csv", "path\na.png\n")
    monkeypatch.setattr(csv_file, "MAX_TABLE_BYTES", path.stat().st_size)
    assert len(read_table(path, Columns()).rows) == 1
    monkeypatch.setattr(csv_file, "MAX_TABLE_BYTES", path.stat().st_size - 1)
    with pytest.raises(DataError, match=r"t\.csv: larger than"):
        read_table(path, Columns())


@pytest.mark.parametrize(
    "text, message",
    [
        ("path,label,PatientID\na.png,1,7\n", "column 'PatientID' is not used, so images of one patient can come into"),
        ("path,label,splitt\na.png,1,train\n", "column 'splitt' is not used; did you mean 'split'?"),
        ("path,labels\na.png,1\n", "column 'labels' is not used; did you mean 'label'?"),
    ],
)
def test_a_column_that_was_meant_for_a_role_is_pointed_out(tmp_path: Path, text: str, message: str):
    (warning,) = read_table(written(tmp_path / "t.csv", text), Columns()).warnings
    assert message in warning


@pytest.mark.parametrize("column", ["age", "stage", "site", "name", "pat"])
def test_a_column_of_another_kind_is_left_alone_without_a_word(tmp_path: Path, column: str):
    assert read_table(written(tmp_path / "t.csv", f"path,label,{column}\na.png,1,7\n"), Columns()).warnings == ()


@pytest.mark.parametrize(
    "column, why",
    [
        ("PatientBirthDate", "a birth date"),
        ("dob", "a birth date"),
        ("Year of birth", "a birth date"),
        ("acq_date", "a date"),
        ("MRN", "the number or name of a person"),
        ("patient no", "the number or name of a person"),
        ("who", "the subject"),
    ],
)
def test_a_column_that_identifies_somebody_is_kept_neither_as_a_number_nor_as_a_label(
    tmp_path: Path, column: str, why: str
):
    path = written(tmp_path / "t.csv", f"path,{column}\na.png,19290101\n")
    kept: list[dict[str, object]] = [{"label": column}, {"attributes": {"x": column}}]
    for places in kept:
        columns = Columns.model_validate(places | ({"subject": "who"} if column == "who" else {}))
        with pytest.raises(DataError, match=f"column '{column}' for (label|x) is {why}"):
            read_table(path, columns)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200) | st.text('path,;\t"\r\n\0=é', max_size=60).map(str.encode))
def test_any_bytes_are_a_table_or_one_line_of_error(tmp_path: Path, content: bytes):
    path = written(tmp_path / "fuzzed.csv", content)
    problem, table = "", None
    try:
        table = csv_file.read_csv(path)
    except DataError as error:
        problem = str(error)
    assert "\n" not in problem and bool(problem) == (table is None)
    if table is not None:
        assert any(table.header) and all(map(any, table.rows)) and len(table.rows) == len(table.numbers)
