"""From the words and numbers of label columns to label vectors and named classes. One reading for all commands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from data_shards.sources.tables.cells import MISSING, flag, is_missing, is_tick, number, spelled
from data_shards.sources.tables.classes import Numbered, number_classes
from data_shards.support.errors import DataError
from data_shards.vocabulary import Task

Partial = Literal["refuse", "no", "drop"]
"""What it means when some of several label columns say nothing: an error, no, or that nothing is known."""


@dataclass(frozen=True)
class Reading:
    """How label cells are read.

    Attributes:
        task: what the labels are for; unknown takes binary, multiclass or multilabel by what is there.
        classes: name of each label value, where the user gave them.
        missing: spellings of no label, as :func:`~data_shards.sources.tables.cells.spelled` leaves them; a name among
            the classes is none. The empty cell is always one.
        partial: what it means when some of several label columns say nothing.
        decimal_comma: see :func:`~data_shards.sources.tables.cells.number`.
        class_values: whether a cell may also be the value of a class that is called by a word. Not where classes were
            numbered by somebody else, as when a classifier meets another table.
    """

    task: Task = Task.unknown
    classes: Mapping[int, str] | None = None
    missing: Sequence[str] = MISSING
    partial: Partial = "refuse"
    decimal_comma: bool = False
    class_values: bool = True


@dataclass(frozen=True)
class Labels:
    """The labels of all studies.

    Attributes:
        task: as given, or what the labels look like.
        classes: name of each label value; of each column for ``multilabel``; empty for numbers.
        vectors: int64 or float64 for each study, None for those without label.
        warnings: how cells were read that can be read in two ways.
    """

    task: Task
    classes: dict[int, str]
    vectors: list[np.ndarray | None]
    warnings: list[str] = field(default_factory=list)


def encode_labels(
    cells: Sequence[Sequence[str] | None], where: Sequence[str], names: Sequence[str], reading: Reading
) -> Labels:
    """Turn label cells into vectors.

    - ``regression``: every cell is a number.
    - ``multilabel``, or several columns: every cell says yes or no, and the columns name the classes.
    - Everything else: one column, see :func:`~data_shards.sources.tables.classes.number_classes`.

    Args:
        cells: of the label columns, for each study; None where there are none. A study whose cells all say nothing has
            no label.
        where: how messages call each study.
        names: of the label columns.
        reading: how they are read.

    Raises:
        DataError: a cell does not fit; the message names the study and not the text of the cell.
    """
    named = {spelled(name) for name in (reading.classes or {}).values()}
    missing = frozenset(reading.missing) - named
    task: Task = reading.task
    warnings: list[str] = []
    columns = task is Task.multilabel or (task is Task.unknown and len(names) > 1)
    if len(names) > 1 and not columns and task is not Task.regression:
        raise DataError(f"{len(names)} label columns; task {task.name} has one")
    if columns or (reading.classes is None and task is not Task.regression):  # given classes say what a mark is
        cells, warnings = _with_marks(cells, names)
    warnings = warnings + _told_missing(cells, missing)
    known = [_known(each, missing, name, reading.partial) for each, name in zip(cells, where, strict=True)]
    if not any(known):
        return Labels(task, dict(reading.classes or {}), [None] * len(known), warnings)
    if task is Task.regression:
        vectors = [_measured(each, name, reading) for each, name in zip(known, where, strict=True)]
        return Labels(task, {}, vectors, warnings)
    if columns:
        count = len(names)
        if reading.classes is not None and sorted(reading.classes) != list(range(count)):
            raise DataError(f"classes name {len(reading.classes)} columns; the {count} label columns count from 0")
        vectors = [_flags(each, name, reading) for each, name in zip(known, where, strict=True)]
        return Labels(Task.multilabel, dict(reading.classes or enumerate(names)), vectors, warnings)
    words = [None if each is None else each[0] for each in known]
    numbered = number_classes([word for word in words if word is not None], reading)
    return Labels(
        _task(task, numbered),
        dict(sorted(numbered.classes.items())),
        [_class(word, name, numbered) for word, name in zip(words, where, strict=True)],
        warnings + numbered.warnings,
    )


def _known(cells: Sequence[str] | None, missing: frozenset[str], name: str, partial: Partial) -> list[str] | None:
    """The cells of a study; None when they say nothing, or not enough."""
    empty = [is_missing(cell, missing) for cell in cells or ()]
    if cells is None or all(empty):
        return None
    if any(empty) and partial == "refuse":
        raise DataError(
            f"{name}: some label columns say nothing and others do; missing_columns=no takes those for no, "
            "missing_columns=drop leaves the label out"
        )
    if any(empty) and partial == "drop":
        return None
    return ["no" if nothing else cell for nothing, cell in zip(empty, cells, strict=True)]


def _measured(cells: Sequence[str] | None, name: str, reading: Reading) -> np.ndarray | None:
    if cells is None:
        return None
    try:
        return np.array([number(cell, decimal_comma=reading.decimal_comma) for cell in cells])
    except DataError as error:
        raise DataError(f"{name}: the label {error}") from None


def _flags(cells: Sequence[str] | None, name: str, reading: Reading) -> np.ndarray | None:
    if cells is None:
        return None
    flags = [flag(cell, decimal_comma=reading.decimal_comma) for cell in cells]
    if None in flags:
        raise DataError(f"{name}: the label says neither yes nor no (1 or 0, true or false, positive or negative, x)")
    return np.array(flags, np.int64)


def _class(word: str | None, name: str, numbered: Numbered) -> np.ndarray | None:
    if word is None:
        return None
    value = numbered.value_of(word)
    if value is None:
        raise DataError(f"{name}: the label is none of the {len(numbered.classes)} classes that are given")
    return np.array([value], np.int64)


def _task(task: Task, numbered: Numbered) -> Task:
    count = len(numbered.classes)
    if task is Task.binary and count > 2:
        raise DataError(f"task binary, and there are {count} classes")
    return task if task is not Task.unknown else Task.binary if count == 2 else Task.multiclass


def _told_missing(cells: Sequence[Sequence[str] | None], missing: frozenset[str]) -> list[str]:
    """Cells that say nothing by a word, which could also be the name of a class."""
    found = Counter(cell for each in cells for cell in each or () if cell and is_missing(cell, missing))
    if not found:
        return []
    counts = ", ".join(f"{count} {cell!r}" for cell, count in sorted(found.items()))
    return [f"{counts} count as no label; where one is the name of a class, list in missing what else is none"]


def _with_marks(
    cells: Sequence[Sequence[str] | None], names: Sequence[str]
) -> tuple[list[list[str] | None], list[str]]:
    """Cells with ``no`` in the empty ones of columns that hold ticks alone, and for the minus beside a plus."""
    rows = [None if each is None else list(each) for each in cells]
    warnings = []
    for place, name in enumerate(names):
        column = [each[place] for each in rows if each is not None]
        filled = [cell for cell in column if cell]
        if filled and all(map(is_tick, filled)) and len(filled) < len(column):
            no, what = "", f"has ticks alone: its {len(column) - len(filled)} empty cells"
        elif "+" in filled and "-" in filled:
            no, what = "-", "has '+': '-'"
        else:
            continue
        warnings.append(f"label column {name!r} {what} count as no")
        for each in rows:
            if each is not None and each[place] == no:
                each[place] = "no"
    return rows, warnings
