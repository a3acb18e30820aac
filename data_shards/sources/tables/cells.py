"""What a cell says: nothing, yes or no, a number. The spellings of all tables, in one place.

No function repeats a cell in a message.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable
from typing import Annotated

from pydantic import BeforeValidator

from data_shards.support.errors import DataError

MISSING = ("na", "n/a", "#n/a", "<na>", "nan", "none", "null", "nil", ".", "-", "--", "?")
"""What stands for a missing value beside the empty cell, as :func:`spelled` leaves it: of R, pandas, SAS, people."""

PERHAPS_MISSING = ("unknown", "unk", "undefined", "not available", "not applicable", "not known", "missing", "nd")
"""Words that are classes as often as they are missing values: they are classes, and their owner is told."""

# English, and what spreadsheets in German, French and Spanish write.
_YES = frozenset((
    "1", "yes", "y", "true", "t", "positive", "pos", "present", "+", "x", "✓", "✔", "√", "ja", "wahr", "oui",
    "vrai", "sí", "si", "verdadero",
))  # fmt: skip
_NO = frozenset(("0", "no", "n", "false", "f", "negative", "neg", "absent", "nein", "falsch", "non", "faux", "falso"))
_TICKS = frozenset(("x", "✓", "✔", "√"))

_WITH_POINT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_WITH_COMMA = re.compile(r"([+-]?\d*),(\d+(?:[eE][+-]?\d+)?)", re.ASCII)
_WHOLE = re.compile(r"([+-]?\d+)(?:[.,]0*)?", re.ASCII)
_DIGITS = 40
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}", re.ASCII)


def spelled(cell: object) -> str:
    """A cell in the form in which spellings are compared: no blanks around it, one inside, small letters."""
    return " ".join(unicodedata.normalize("NFKC", str(cell)).casefold().split())


def _spellings(given: object) -> object:
    """One or several spellings; YAML has read some of them as something else than text."""
    return tuple(map(spelled, given if isinstance(given, list | tuple) else (given,)))


Spellings = Annotated[tuple[str, ...], BeforeValidator(_spellings)]
"""The type of an option that lists spellings."""


def is_missing(cell: str, missing: Iterable[str] = MISSING) -> bool:
    """Whether a cell says nothing."""
    return not cell or spelled(cell) in missing


def is_tick(cell: str) -> bool:
    """Whether a cell is the mark of a column that is ticked where it applies, and empty elsewhere."""
    return spelled(cell) in _TICKS


def flag(cell: str, *, decimal_comma: bool = False) -> bool | None:
    """Yes or no; None when the cell is neither. ``decimal_comma`` as for :func:`number`."""
    whole = whole_number(cell, decimal_comma=decimal_comma)
    word = spelled(cell) if whole is None else str(whole)
    return True if word in _YES else False if word in _NO else None


def number(cell: str, *, decimal_comma: bool = False) -> float:
    """The finite number in a cell.

    ``1,5`` is one and a half. ``1,234`` could be either of two numbers, and is one and a bit only in a table whose
    cells are separated by semicolons, as programs write it that have a decimal comma.

    Args:
        cell: text without blanks around it.
        decimal_comma: whether a comma before three digits is a decimal one.

    Raises:
        DataError: there is none; the message completes a sentence about the cell.
    """
    comma = _WITH_COMMA.fullmatch(cell)
    if comma is not None:
        if not decimal_comma and _THOUSANDS.fullmatch(cell):
            raise DataError("has a comma that can divide thousands or decimals; write a point, or no comma")
        cell = f"{comma[1]}.{comma[2]}"
    value = float(cell) if _WITH_POINT.fullmatch(cell) else math.nan
    if not math.isfinite(value):
        raise DataError("is not a finite number")
    return value


def number_or_none(cell: str, *, decimal_comma: bool = False) -> float | None:
    """As :func:`number`; None where there is none."""
    try:
        return number(cell, decimal_comma=decimal_comma)
    except DataError:
        return None


def alike(one: str, other: str) -> bool:
    """Whether two words that say yes, or no, are spellings of one: ``Y`` and ``yes`` are, ``F`` and ``N`` are not.

    Numbers and signs have no letters to compare and are like every word.
    """
    if not (one.isalpha() and other.isalpha()):
        return True
    first, second = (unicodedata.normalize("NFD", spelled(word)) for word in (one, other))
    plain, other_plain = ("".join(filter(str.isalpha, word)) for word in (first, second))
    return plain.startswith(other_plain) or other_plain.startswith(plain)


def whole_number(cell: str, *, decimal_comma: bool = False) -> int | None:
    """The whole number in a cell, exactly, also when it is written as ``1.0``; None when it is none.

    ``decimal_comma`` as for :func:`number`.
    """
    whole = _WHOLE.fullmatch(cell)
    if whole is not None and (decimal_comma or not _THOUSANDS.fullmatch(cell)) and len(cell) <= _DIGITS:
        return int(whole[1])
    value = number_or_none(cell, decimal_comma=decimal_comma)
    return int(value) if value is not None and value.is_integer() and abs(value) < 1 << 53 else None
