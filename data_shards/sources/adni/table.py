"""A CSV file of the export; messages have numbers of rows and never the text of a cell."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from data_shards.sources.adni import roles
from data_shards.support.errors import DataError
from data_shards.support.limits import open_regular

MAX_TABLE_BYTES = 256 << 20  # ADNIMERGE of 2024 has 15 MB
_DELIMITERS = ",;\t"


@dataclass(frozen=True)
class Table:
    """A table that has been read.

    Attributes:
        name: how messages call it.
        file: name of the file, in small letters.
        header: names of the columns.
        rows: cells by row, empty rows left out.
    """

    name: str
    file: str = field(repr=False)
    header: list[str] = field(repr=False)
    rows: list[list[str]] = field(repr=False)

    def columns(self, kinds: Mapping[str, roles.Role]) -> dict[str, int]:
        """Places of the columns by role."""
        return roles.columns(self.header, self.rows, kinds)

    def cells(self, places: Mapping[str, int]) -> Iterator[tuple[str, dict[str, str] | None]]:
        """For each row how messages call it, and its stripped cells by role; None when it is longer or shorter."""
        for number, row in enumerate(self.rows, start=1):
            whole = len(row) == len(self.header)
            cells = {role: row[place].strip() for role, place in places.items()} if whole else None
            yield f"row {number} of {self.name}", cells


def read_table(path: Path, name: str) -> Table:
    """Read a CSV file separated by comma, semicolon or tab, with or without byte order mark.

    Args:
        path: the file.
        name: how messages are to call it.

    Raises:
        DataError: it is empty, too large, or no text in CSV.
    """
    try:
        with open_regular(path) as file:
            content = file.read(MAX_TABLE_BYTES + 1)
        if len(content) > MAX_TABLE_BYTES:
            raise DataError(f"larger than {MAX_TABLE_BYTES >> 20} MiB")
        if b"\0" in content:
            raise DataError("zero bytes in it; a CSV table in UTF-8 is expected")
        header, rows = _parse(content)
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({type(error).__name__})") from None
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    return Table(name, path.name.casefold(), header, rows)


def _parse(content: bytes) -> tuple[list[str], list[list[str]]]:
    # Only ASCII cells are ever used; a name in another encoding must not stop the rest.
    text = content.decode("utf-8-sig", errors="replace")
    delimiter = max(_DELIMITERS, key=text.lstrip().partition("\n")[0].count)
    rows: list[list[str]] = []
    try:
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True):
            if any(cell.strip() for cell in row):
                rows.append(row)
    except csv.Error:
        raise DataError(f"not a CSV table: row {len(rows)} has an open quote or a huge cell") from None
    if not rows:
        raise DataError("empty")
    return rows[0], rows[1:]
