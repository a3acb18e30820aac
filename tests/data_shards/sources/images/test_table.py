"""Tables: which column means what, and every way in which one can be broken."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from data_shards.sources.tables.roles import Columns, read_table
from data_shards.support.errors import DataError

SECRET = "DoeJane"


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_columns_are_found_by_the_names_of_their_roles(tmp_path: Path):
    path = written(tmp_path / "t.csv", "subject,label, path ,split,other\n p1 ,0,a.png, train,x\np2,1,b.png,test,y\n")
    table = read_table(path, Columns())
    assert [row.number for row in table.rows] == [1, 2] and table.label_names == ("label",)
    assert table.rows[0].cells == {"path": "a.png", "subject": "p1", "split": "train"}
    assert table.rows[1].label == ("1",) and table.rows[1].name == "row 2 of the table"


def test_columns_are_found_by_the_names_that_the_user_gives(tmp_path: Path):
    path = written(tmp_path / "t.csv", "file,who,path,d1,d2,years\na.png,p1,wrong,0,1,33\n")
    columns = Columns(path="file", subject="who", label=("d1", "d2"), attributes={"age_years": "years"})
    table = read_table(path, columns)
    assert table.rows[0].cells == {"path": "a.png", "subject": "p1"}
    assert table.rows[0].label == ("0", "1") and table.label_names == ("d1", "d2")
    assert table.rows[0].attributes == {"age_years": "33"}


def test_one_label_column_may_be_given_as_a_word():
    assert Columns(label="grade").label == ("grade",)  # type: ignore[arg-type]


@pytest.mark.parametrize("mark", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_separators_line_ends_and_a_byte_order_mark_are_understood(tmp_path: Path, mark: str, end: str, start: str):
    text = start + end.join((mark.join(("path", "label")), mark.join(("a.png", "1")), "", mark.join(("b.png", "0"))))
    table = read_table(written(tmp_path / "t.csv", text), Columns())
    assert [(row.number, row.cells["path"], row.label) for row in table.rows] == [
        (1, "a.png", ("1",)),
        (2, "b.png", ("0",)),
    ]


def test_quoted_cells_hold_separators_quotes_and_line_ends(tmp_path: Path):
    path = written(tmp_path / "t.csv", 'path,subject\n"a,1.png","say ""x""\nline"\nb.png,p\n')
    rows = read_table(path, Columns()).rows
    assert rows[0].cells == {"path": "a,1.png", "subject": 'say "x"\nline'} and rows[1].number == 2


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
    "header alone": (b"path,label\n", "a header and no rows"),
    "short row": (b"path,subject\na.png,DoeJane\nDoeJane\n", "row 2 has 1 cells, the header 2"),
    "long row": (b"path,subject\na.png,p\nb.png,p\nDoeJane,DoeJane,x\n", "row 3 has 3 cells, the header 2"),
    "NUL": (b"path,subject\na.png,p\nDoeJane\0,x\n", "row 2 has a NUL byte"),
    "NUL in the header": (b"path,DoeJane\0\na.png,p\n", "the header has a NUL byte"),
    "UTF-16": ("path,subject\na.png,DoeJane\n".encode("utf-16"), "the header .* UTF-8"),
    "Latin-1": ("path,subject\na.png,p\nb.png,DoeJané\n".encode("latin-1"), "row 2 is not UTF-8 text"),
    "open quote": (b'path,subject\na.png,p\n"DoeJane,x\ny,z\n', "row 2 is broken"),
    "quote inside": (b'path,subject\na.png,"DoeJane"x\n', "row 1 is broken"),
    "huge cell": (b"path,subject\na.png," + b"DoeJane" * 30_000 + b"\n", "row 1 is broken"),
    "huge line": (b"path,subject\na.png,p\n" + b"DoeJane," * 200_000 + b"\n", "row 2 has a line of more than"),
    "huge quoted cell": (b'path,subject\na.png,"' + b"DoeJane\n" * 30_000 + b'"\n', "row 1 is broken"),
    "column twice": (b"path,subject,subject\na.png,DoeJane,DoeJane\n", "column 'subject' is there 2 times"),
    "path twice": (b"path, path\na.png,DoeJane\n", "column 'path' is there 2 times"),
    "carriage return": (b"path,subject\na.png,DoeJane\rx,y\n", "row 1 is broken|row 1 has|row 2"),
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
