"""Which classes the words or numbers of one label column are, in which order, and how they are called."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Protocol

from data_shards.sources.tables.cells import (
    MISSING,
    PERHAPS_MISSING,
    alike,
    flag,
    number_or_none,
    spelled,
    whole_number,
)
from data_shards.sources.tables.misspelt import misspelt
from data_shards.support.errors import DataError
from data_shards.vocabulary import Task

# More classes than this, one for every other study: a column of identifiers, which must not become class names.
_MANY_CLASSES = 20
_LONGEST_NAME = 60
# From here on a whole number is rather the number of a person, or of anything else, than that of a class.
_LARGEST_VALUE = 10**9
# A hyphen is a minus where nothing but a blank stands before it: "-1 SD", not "1-5" and not "grade-1".
_NUMBER = re.compile(r"((?:(?<!\S)[+\-\N{MINUS SIGN}])?\d+(?:\.\d+)?)", re.ASCII)
_NUMBER_WITH_COMMA = re.compile(_NUMBER.pattern.replace(r"\.", "[.,]"), re.ASCII)
_TEXT_NUMBER_TEXT = 3
_BETWEEN_WORDS = re.compile(r"[\s_-]+")


class HowToRead(Protocol):
    """The part of :class:`~data_shards.sources.tables.labels.Reading` that matters here."""

    @property
    def task(self) -> Task:
        """What the labels are for."""

    @property
    def classes(self) -> Mapping[int, str] | None:
        """Names of label values."""

    @property
    def class_values(self) -> bool:
        """Whether a cell may be the value of a class that is called by a word."""

    @property
    def decimal_comma(self) -> bool:
        """How numbers are written."""


@dataclass(frozen=True)
class Numbered:
    """The classes of a column.

    Attributes:
        classes: name of each label value.
        value_of: the value of a cell; None when it is of no class.
        warnings: what can be read in another way.
    """

    classes: dict[int, str]
    value_of: Callable[[str], int | None]
    warnings: list[str] = field(default_factory=list)


def number_classes(words: Sequence[str], reading: HowToRead) -> Numbered:
    """Tell the classes of a column by its cells.

    - With ``classes`` a cell is the name of a class or, with ``class_values``, its value. Names that are numbers are
      compared as numbers; where one is another number than its value, numbers are names alone.
    - Whole numbers, also as ``1.0``, are taken as they are; negative ones, numbers with fractions and very large ones
      are numbered from 0 in the order of their values and give the classes their names.
    - A column of yes and no, in whatever spelling, has 0 for no and 1 for yes. Words that say the same and are no
      spellings of each other, as F and N of T, F and N, are classes of their own.
    - Other words are numbered from 0 in sorted order, numbers inside them by value: grade 2 before grade 10. The order
      of ordinal classes is told unless the words are equal but for one number.

    Raises:
        DataError: numbers and words are mixed, or the column looks like one of identifiers or measurements.
    """
    if reading.classes is not None:
        return _given(reading.classes, reading, words)
    distinct = sorted(set(words))
    values = {word: _value(word, reading) for word in distinct}
    numbers = sorted({value for value in values.values() if value is not None})
    all_numbers = None not in values.values()
    count = len(numbers) if all_numbers else len(distinct)
    if count > _MANY_CLASSES and 2 * count > len(words):
        raise DataError(
            f"{count} different labels in {len(words)} studies: this looks like identifiers or measurements; "
            "name another column, or set task to regression"
        )
    if all_numbers:
        return _by_number(values, numbers, reading.task)
    flags = {word: flag(word, decimal_comma=reading.decimal_comma) for word in distinct}
    yes_and_no = set(flags.values()) == {False, True}
    if yes_and_no and all(alike(*pair) for pair in itertools.combinations(distinct, 2) if _same(flags, pair)):
        return _yes_and_no(words, flags)
    if numbers:  # a shifted row, or a measurement: its text must not become the name of a class
        some = sum(value is not None for value in values.values())
        raise DataError(f"{some} of {len(distinct)} labels are numbers, the others are words; name the classes")
    return _by_word(Counter(words), reading)


def _given(classes: Mapping[int, str], reading: HowToRead, words: Sequence[str]) -> Numbered:
    by_name = {name: value for value, name in classes.items()}
    # pandas writes 1 as 1.0 once a cell of the column is missing: both are one name.
    numbers = [(number, value) for name, value in by_name.items() if (number := _value(name, reading)) is not None]
    by_number = dict(numbers)
    if len(by_number) < len(numbers):
        raise DataError("two names of classes are the same number")
    said = {value: flag(name, decimal_comma=reading.decimal_comma) for value, name in classes.items()}
    if not numbers and not reading.class_values and any(said[value] is not bool(value) for value in said):
        _refuse_values(words, classes, reading)
    elif all(number == value for number, value in numbers):
        by_number = {value: value for value in classes}

    def value_of(cell: str) -> int | None:
        number = _value(cell, reading)
        return by_name.get(cell, None if number is None else by_number.get(number))

    return Numbered(dict(classes), value_of)


def _refuse_values(words: Sequence[str], classes: Mapping[int, str], reading: HowToRead) -> None:
    """Numbers cannot be told apart from another numbering of the same classes."""
    if words and all(_value(word, reading) is not None for word in words):
        raise DataError(
            f"labels are numbers, the first {words[0]}; the classes are called {', '.join(classes.values())}, and "
            "which number is which cannot be known: write the names"
        )


def _value(word: str, reading: HowToRead) -> int | float | None:
    whole = whole_number(word, decimal_comma=reading.decimal_comma)
    return whole if whole is not None else number_or_none(word, decimal_comma=reading.decimal_comma)


def _by_number(values: Mapping[str, int | float | None], numbers: Sequence[int | float], task: Task) -> Numbered:
    as_they_are = all(isinstance(value, int) and 0 <= value < _LARGEST_VALUE for value in numbers)
    numbered = {value: int(value) if as_they_are else place for place, value in enumerate(numbers)}
    warnings = []
    if task is Task.unknown and not all(isinstance(value, int) for value in numbers):
        warnings.append(
            f"labels are numbers with fractions: {len(numbers)} classes in their order; regression is a task"
        )
    names = {place: str(value) for value, place in numbered.items()}
    by_word = {word: numbered[value] for word, value in values.items() if value is not None}
    return Numbered(names, by_word.get, warnings)


def _same(flags: Mapping[str, bool | None], pair: tuple[str, str]) -> bool:
    return flags[pair[0]] is flags[pair[1]]


def _yes_and_no(words: Sequence[str], flags: Mapping[str, bool | None]) -> Numbered:
    """Named by the commonest spelling of each."""
    counts = Counter(words)
    spellings = {said: sorted(word for word in counts if flags[word] is said) for said in (False, True)}
    names = {int(said): max(found, key=counts.__getitem__) for said, found in spellings.items()}
    warnings = [
        f"{' and '.join(map(repr, found))} are read as one label" for found in spellings.values() if len(found) > 1
    ]
    return Numbered(names, {word: int(bool(said)) for word, said in flags.items()}.get, warnings)


def _by_word(counts: Mapping[str, int], reading: HowToRead) -> Numbered:
    distinct = list(counts)
    if max(map(len, distinct)) > _LONGEST_NAME or not all(map(str.isprintable, distinct)):
        raise DataError(f"a label is not a word of at most {_LONGEST_NAME} printable characters; name the classes")
    parts = {word: _text_and_numbers(word, reading) for word in distinct}
    ordered = sorted(distinct, key=parts.__getitem__)
    warnings = [
        f"labels {' and '.join(map(repr, alike))} are different classes; are they two spellings of one?"
        for _, group in itertools.groupby(sorted(ordered, key=_loosely), _loosely)
        if len(alike := list(group)) > 1
    ]
    warnings += [
        f"labels {rare!r} ({counts[rare]}) and {common!r} ({counts[common]}) are different classes; are they two "
        "spellings of one?"
        for rare, common in misspelt(counts)
    ]
    warnings += [
        f"a class is called {word!r}; missing=[{word}] makes it no label"
        for word in ordered
        if spelled(word) in (*MISSING, *PERHAPS_MISSING)
    ]
    # Only of words that are equal but for one number is the order certain: "<1" stands before "1-5" for people alone.
    texts = {tuple(text for _, text in parts[word]) for word in ordered}
    if reading.task is Task.ordinal and (len(texts) > 1 or len(texts.pop()) != _TEXT_NUMBER_TEXT):
        warnings.append(
            f"the order of the classes is that of their letters and numbers: {' < '.join(ordered)}; "
            "classes says another"
        )
    return Numbered(dict(enumerate(ordered)), {word: value for value, word in enumerate(ordered)}.get, warnings)


def _text_and_numbers(word: str, reading: HowToRead) -> list[tuple[Decimal, str]]:
    """A word as text and numbers in turn, so that 2 stands before 10, 1.25 before 1.5 and -2 before -1."""
    parts = (_NUMBER_WITH_COMMA if reading.decimal_comma else _NUMBER).split(word)
    return [
        (Decimal(part.replace(",", ".").replace("\N{MINUS SIGN}", "-")), "") if place % 2 else (Decimal(0), part)
        for place, part in enumerate(parts)
    ]


def _loosely(word: str) -> str:
    """What two spellings of one label have in common."""
    return _BETWEEN_WORDS.sub(" ", spelled(word)).strip()
