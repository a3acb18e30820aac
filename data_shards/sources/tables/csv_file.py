"""A CSV file as spreadsheets, pandas and R write it: whatever its encoding, its separator and its line ends.

Cells stay text: what they mean is decided where they are used. No message repeats what stands in a cell.
"""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from data_shards.support.errors import DataError
from data_shards.support.limits import open_regular

MAX_TABLE_BYTES = 256 << 20
"""The largest file that is read; ADNIMERGE of 2024 has 15 MB."""

SUFFIXES = (".csv", ".tsv")
_LINE = 1 << 20  # characters
_CHUNK_BYTES = 1 << 20
_LINES_BEFORE_HEADER = 1000
_DELIMITERS = ",;\t"
# Excel writes this line, and reads it, to say what separates the cells.
_SEPARATOR_LINE = re.compile(r'"?sep=([^"\w\r\n])"?\W*', re.IGNORECASE)
_QUOTED = re.compile(r'"[^"]*("|$)')
# Tried in this order: Latin-1 gives every byte a letter, Windows-1252 all but five and is what Excel writes.
_ENCODINGS = ("utf-8-sig", "cp1252", "latin-1")
# What else is handed over as a table, by the first bytes.
_NO_TEXT = {
    b"PK\x03\x04": "an Excel or LibreOffice workbook: save its sheet as CSV UTF-8",
    b"\xd0\xcf\x11\xe0": "an Excel workbook: save its sheet as CSV UTF-8",
    b"PAR1": "a Parquet file: write it as CSV",
    b"\x1f\x8b": "compressed with gzip: unpack it first",
}


@dataclass(frozen=True)
class CsvFile:
    """A file that has been read.

    Attributes:
        header: names of the columns.
        rows: cells of each row that has any; neither they nor the names have blanks around them.
        numbers: where each row stands in the file, as a spreadsheet counts: the first row is 1, empty ones count.
        delimiter: what separates the cells.
        encoding: how letters are written.
    """

    header: list[str] = field(repr=False)
    rows: list[list[str]] = field(repr=False)
    numbers: list[int] = field(repr=False)
    delimiter: str = ","
    encoding: str = "utf-8"

    @property
    def warnings(self) -> list[str]:
        """What the owner of the table has to know of how it was read."""
        if self.encoding.startswith("utf"):
            return []
        return ["the table is not UTF-8 and is read as Windows-1252; where letters come out wrong, save it as UTF-8"]


def read_csv(path: Path) -> CsvFile:
    """Read a CSV file (RFC 4180) with a header.

    UTF-8 with or without byte order mark, UTF-16 with it, else Windows-1252. Separated by what a line ``sep=`` says,
    else by comma, semicolon or tab, whichever the header has most of. Lines end in CR, LF or both. Rows of empty cells
    are passed over, and so are empty cells behind the last column.

    Raises:
        DataError: it cannot be opened, is too large, empty, no text, or a quote is not closed. The message gives the
            number of the row; it does not name the file.
    """
    with open_regular(path) as file:
        encoding = _encoding(file)
        text = io.TextIOWrapper(file, encoding, newline="")
        try:
            lines = _lines(text)
            start, header_lines = _through_header(lines)
            stated = _SEPARATOR_LINE.fullmatch(header_lines)
            skipped = len(start) if stated else 0
            if stated:
                more, header_lines = _through_header(lines)
                start += more
            delimiter = stated[1] if stated else _delimiter(header_lines)
            records = _records(itertools.chain(start, lines), delimiter)
            records = itertools.islice(records, skipped, None)
            filled = ((number, cells) for number, cells in records if any(cells))
            _, header = next(filled, (0, []))
            if not header:  # a quote that opens before the line that says the separator
                raise DataError("the table is empty")
            rows, numbers = [], []
            for number, cells in filled:
                while len(cells) > len(header) and not cells[-1]:
                    cells.pop()
                rows.append(cells)
                numbers.append(number)
        except UnicodeError:
            raise DataError(f"no text in {encoding}") from None
        finally:
            text.detach()
    return CsvFile(header, rows, numbers, delimiter, encoding)


def _encoding(file: BinaryIO) -> str:
    """The first encoding in which the whole file is text; it is read in pieces and left at its start."""
    if os.fstat(file.fileno()).st_size > MAX_TABLE_BYTES:
        raise DataError(f"larger than {MAX_TABLE_BYTES >> 20} MiB")
    start = file.read(4)
    for magic, what in _NO_TEXT.items():
        if start.startswith(magic):
            raise DataError(what)
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        file.seek(0)
        return "utf-16"
    return next(encoding for encoding in _ENCODINGS if _decodes(file, encoding))


def _decodes(file: BinaryIO, encoding: str) -> bool:
    decoder = codecs.getincrementaldecoder(encoding)()
    file.seek(0)
    try:
        while chunk := file.read(_CHUNK_BYTES):
            decoder.decode(chunk)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    file.seek(0)
    return True


def _lines(text: io.TextIOWrapper) -> Iterator[str]:
    for number in itertools.count(1):
        line = text.readline(_LINE)
        if not line:
            return
        if len(line) == _LINE:
            raise DataError(f"line {number} has more than {_LINE} characters")
        if "\0" in line:
            raise DataError(f"line {number} has a NUL byte; text in UTF-8 is expected")
        yield line


def _through_header(lines: Iterator[str]) -> tuple[list[str], str]:
    """Lines up to the first row that has a letter or a digit, and the text of this row, whose quotes may hold lines."""
    start: list[str] = []
    header = ""
    for line in itertools.islice(lines, _LINES_BEFORE_HEADER):
        start.append(line)
        if header or any(map(str.isalnum, line)):
            header += line
            if header.count('"') % 2 == 0:
                return start, header
    if header:  # a quote that does not close: what is wrong shows when the rows are read
        return start, header
    short = len(start) < _LINES_BEFORE_HEADER
    raise DataError("the table is empty" if short else f"its first {_LINES_BEFORE_HEADER} lines are empty")


def _delimiter(header: str) -> str:
    """What separates the names of the columns; a comma inside quotes does not."""
    bare = _QUOTED.sub("", header)
    return max(_DELIMITERS, key=bare.count)


def _records(lines: Iterator[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Number and stripped cells of each record."""
    reader = csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=True)
    for number in itertools.count(1):
        try:
            record = next(reader, None)
        except csv.Error:
            raise DataError(f"row {number} is broken (an open quote or a huge cell)") from None
        if record is None:
            return
        yield number, [cell.strip() for cell in record]
