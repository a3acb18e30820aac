"""A CSV file of the export; messages have numbers of rows and never the text of a cell."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from data_shards.sources.adni import roles
from data_shards.sources.tables.csv_file import read_csv
from data_shards.support.errors import DataError

_DECIMAL_COMMA = re.compile(r"([+-]?[0-9]+),([0-9]+)")


@dataclass(frozen=True)
class Table:
    """A table that has been read.

    Attributes:
        name: how messages call it.
        file: name of the file, in small letters.
        header: names of the columns.
        rows: cells by row, empty rows left out.
        numbers: of the rows in the file.
        decimal_comma: cells are separated by semicolons, as programs do that write numbers with a comma.
    """

    name: str
    file: str = field(repr=False)
    header: list[str] = field(repr=False)
    rows: list[list[str]] = field(repr=False)
    numbers: list[int] = field(repr=False)
    decimal_comma: bool = False

    def columns(self, kinds: Mapping[str, roles.Role]) -> dict[str, int]:
        """Places of the columns by role."""
        return roles.columns(self.header, self.rows, kinds)

    def cells(self, places: Mapping[str, int]) -> Iterator[tuple[str, dict[str, str] | None]]:
        """For each row how messages call it, and its cells by role; None when it is longer or shorter."""
        for number, row in zip(self.numbers, self.rows, strict=True):
            whole = len(row) == len(self.header)
            yield (
                f"row {number} of {self.name}",
                {role: self._cell(row[place]) for role, place in places.items()} if whole else None,
            )

    def _cell(self, cell: str) -> str:
        return _DECIMAL_COMMA.sub(r"\1.\2", cell) if self.decimal_comma and _DECIMAL_COMMA.fullmatch(cell) else cell


def read_table(path: Path, name: str) -> Table:
    """Read a CSV file, see :func:`~data_shards.sources.tables.csv_file.read_csv`.

    Args:
        path: the file.
        name: how messages are to call it.

    Raises:
        DataError: it is empty, too large, or no text in CSV.
    """
    try:
        content = read_csv(path)
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({type(error).__name__})") from None
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    return Table(name, path.name.casefold(), content.header, content.rows, content.numbers, content.delimiter == ";")
