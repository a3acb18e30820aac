"""CSV tables of studies: columns are found by what they are for, and messages never repeat what stands in a cell."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO

from pydantic import BeforeValidator, Field

from data_shards.support.documents import Document
from data_shards.support.errors import DataError
from data_shards.support.limits import open_regular

_LINE_BYTES = 1 << 20
_DELIMITERS = ",;\t"


def _listed(names: object) -> object:
    return (names,) if isinstance(names, str) else names


class Columns(Document):
    """Names of columns by role. A role that is not named uses the column of its own name where there is one."""

    path: str | None = Field(None, description="the file, or the folder of a DICOM series, relative to the root")
    subject: str | None = Field(None, description="who is shown; is hashed")
    study: str | None = Field(None, description="rows of one study are the images of one sample")
    image: str | None = Field(None, description="name of the image in its study, such as t2w; mask for class ids")
    label: Annotated[tuple[str, ...], BeforeValidator(_listed)] | None = Field(
        None, description="one column, or several for multilabel and regression"
    )
    split: str | None = Field(None, description="train, val or test; training, validation and testing are also read")
    organ: str | None = Field(None, description="body part, an entry of the vocabulary")
    modality: str | None = Field(None, description="how the image was made, an entry of the vocabulary")
    attributes: dict[str, str] = Field({}, description="columns of further numbers, by the name they shall have")


@dataclass(frozen=True)
class Row:
    """One row of data.

    Attributes:
        number: 1 for the first row after the header.
        cells: stripped text by role; roles without a column are missing.
        label: cells of the label columns; empty without such columns.
        attributes: cells of the further numbers by name.
    """

    number: int
    cells: dict[str, str]
    label: tuple[str, ...]
    attributes: dict[str, str]

    @property
    def name(self) -> str:
        """How messages call it."""
        return f"row {self.number} of the table"


@dataclass(frozen=True)
class Table:
    """A table that has been read.

    Attributes:
        rows: all of them, in order.
        label_names: the label columns, as the header calls them.
    """

    rows: list[Row]
    label_names: tuple[str, ...]


def read_table(path: Path, columns: Columns) -> Table:
    """Read a CSV file (RFC 4180) in UTF-8, with or without byte order mark, separated by comma, semicolon or tab.

    Empty lines are passed over and not counted.

    Raises:
        DataError: the file is missing, empty or broken (NUL bytes, another encoding, a row of another length than the
            header, an open quote), or a column is missing or there twice. The message has the number of the row and
            never the text of a cell.
    """
    try:
        with open_regular(path) as file:
            records = _records(file)
            header = next(records, None)
            if header is None:
                raise DataError("the table is empty")
            roles, labels, attributes = _places(header, columns)
            rows = []
            for number, record in enumerate(records, start=1):
                if len(record) != len(header):
                    raise DataError(f"row {number} has {len(record)} cells, the header {len(header)}")
                rows.append(
                    Row(
                        number=number,
                        cells={role: record[place].strip() for role, place in roles.items()},
                        label=tuple(record[place].strip() for place in labels),
                        attributes={name: record[place].strip() for name, place in attributes.items()},
                    )
                )
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    if not rows:
        raise DataError(f"{path}: the table has a header and no rows")
    return Table(rows, tuple(header[place].strip() for place in labels))


def _records(file: BinaryIO) -> Iterator[list[str]]:
    """The records of a CSV file, the header first.

    Raises:
        DataError: a record cannot be read; it is named by its number.
    """
    start = file.readline(_LINE_BYTES)
    file.seek(0)
    delimiter = max(_DELIMITERS, key=lambda mark: start.count(mark.encode()))
    reader = csv.reader(_lines(file), delimiter=delimiter, strict=True)
    number = 0
    while True:
        try:
            record = next(reader, None)
        except (csv.Error, _BrokenLineError) as error:
            where = f"row {number}" if number else "the header"
            reason = str(error) if isinstance(error, _BrokenLineError) else "is broken (an open quote or a huge cell)"
            raise DataError(f"{where} {reason}") from None
        if record is None:
            return
        if record:
            yield record
            number += 1


class _BrokenLineError(ValueError):
    """A line that is no text."""


def _lines(file: BinaryIO) -> Iterator[str]:
    encoding = "utf-8-sig"
    while line := file.readline(_LINE_BYTES):
        if len(line) == _LINE_BYTES:
            raise _BrokenLineError(f"has a line of more than {_LINE_BYTES} bytes")
        if b"\0" in line:
            raise _BrokenLineError("has a NUL byte; a CSV file in UTF-8 is expected")
        try:
            yield line.decode(encoding)
        except UnicodeDecodeError:
            raise _BrokenLineError("is not UTF-8 text") from None
        encoding = "utf-8"


def _places(header: Sequence[str], columns: Columns) -> tuple[dict[str, int], list[int], dict[str, int]]:
    """Where the columns are: by role, of the label, of the attributes."""
    names = [name.strip() for name in header]
    roles = {}
    for role in Columns.model_fields:
        if role in ("label", "attributes"):
            continue
        named = getattr(columns, role)
        if named is not None or role in names or role == "path":
            roles[role] = _place(names, named or role, role)
    if columns.label is not None:
        labels = [_place(names, name, "label") for name in columns.label]
    else:
        labels = [_place(names, "label", "label")] if "label" in names else []
    return roles, labels, {key: _place(names, name, key) for key, name in columns.attributes.items()}


def _place(names: Sequence[str], name: str, role: str) -> int:
    """The column called ``name``.

    Only a column with nearly this name is named in the message: without a header, the first row is one of data.
    """
    places = [place for place, other in enumerate(names) if other == name]
    if len(places) == 1:
        return places[0]
    if places:
        raise DataError(f"column {name!r} is there {len(places)} times")
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    hint = f"; did you mean {close[0]!r}?" if close else f" among the {len(names)} of the header"
    raise DataError(f"no column {name!r} for the role {role}{hint}")
