"""From the words and numbers of a table to label vectors and named classes."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from data_shards.sources.images.study import Study
from data_shards.support.errors import DataError
from data_shards.vocabulary import Task

_INTEGER = re.compile(r"\d{1,9}")
# More classes than this, one for every other study: a column of identifiers, which must not become class names.
_MANY_CLASSES = 20
_LONGEST_NAME = 60


@dataclass(frozen=True)
class Labels:
    """The labels of all studies.

    Attributes:
        task: as given, or what the labels look like.
        classes: name of each label value; of each column for ``multilabel``; empty for numbers.
        vectors: int64 or float64 for each study, None for those without label.
    """

    task: Task
    classes: dict[int, str]
    vectors: list[np.ndarray | None]


def encode_labels(
    studies: Sequence[Study], names: Sequence[str], *, task: Task, classes: Mapping[int, str] | None
) -> Labels:
    """Turn label cells into vectors.

    - ``regression``: every cell is a number.
    - ``multilabel``, or several columns: every cell is 0 or 1, and the columns name the classes.
    - Everything else: one column. Integers are taken as they are; words are numbered in sorted order, or as
      ``classes`` says, and name the classes in the dataset card.

    Args:
        studies: with their cells; a study whose cells are all empty has no label.
        names: of the label columns.
        task: how labels are to be read; unknown takes binary, multiclass or multilabel by what is there.
        classes: name of each label value, where the user gave them.

    Raises:
        DataError: a cell does not fit; the message names the study and not the text of the cell.
    """
    cells = [study.label if study.label and any(study.label) else None for study in studies]
    where = [study.name for study in studies]
    if not any(cells):
        return Labels(task, dict(classes or {}), [None] * len(cells))
    for name, values in zip(where, cells, strict=True):
        if values and not all(values):
            raise DataError(f"{name}: some label columns are empty and others are not")
    if task is Task.regression:
        return Labels(task, {}, [_vector(name, values, _number) for name, values in zip(where, cells, strict=True)])
    if task is Task.multilabel or (task is Task.unknown and len(names) > 1):
        if classes is not None and sorted(classes) != list(range(len(names))):
            raise DataError(f"classes name {len(classes)} columns; the {len(names)} label columns are counted from 0")
        vectors = [_vector(name, values, _flag) for name, values in zip(where, cells, strict=True)]
        return Labels(Task.multilabel, dict(classes or enumerate(names)), vectors)
    if len(names) > 1:
        raise DataError(f"{len(names)} label columns; task {task.name} has one")
    words = [None if values is None else values[0] for values in cells]
    numbered = _numbered([word for word in words if word is not None], classes)
    vectors = []
    for name, word in zip(where, words, strict=True):
        if word is not None and word not in numbered:
            raise DataError(f"{name}: the label is none of the {len(set(numbered.values()))} classes that are given")
        vectors.append(None if word is None else np.array([numbered[word]], np.int64))
    found = _names_of(numbered) if classes is None else dict(classes)
    if task is Task.unknown:
        task = Task.binary if len(found) == 2 else Task.multiclass
    return Labels(task, dict(sorted(found.items())), vectors)


def _numbered(words: Sequence[str], classes: Mapping[int, str] | None) -> dict[str, int]:
    """The value of each word."""
    if classes is not None:
        return {str(value): value for value in classes} | {name: value for value, name in classes.items()}
    distinct = sorted(set(words))
    if len(distinct) > _MANY_CLASSES and 2 * len(distinct) > len(words):
        raise DataError(
            f"{len(distinct)} different labels in {len(words)} studies: this looks like identifiers or measurements; "
            "name another column, or set task to regression"
        )
    integers = [word for word in distinct if _INTEGER.fullmatch(word)]
    if len(integers) == len(distinct):
        return {word: int(word) for word in distinct}
    if integers:  # a shifted row, or a measurement: its text must not become the name of a class
        raise DataError(
            f"{len(integers)} of {len(distinct)} labels are integers, the others are words; name the classes"
        )
    if max(map(len, distinct)) > _LONGEST_NAME or not all(map(str.isprintable, distinct)):
        raise DataError(f"a label is not a word of at most {_LONGEST_NAME} printable characters; name the classes")
    return {word: value for value, word in enumerate(distinct)}


def _names_of(numbered: Mapping[str, int]) -> dict[int, str]:
    """The name of each class that was not given one: its word, or its number."""
    by_number = all(_INTEGER.fullmatch(word) for word in numbered)
    return {value: str(value) if by_number else word for word, value in numbered.items()}


def _vector(name: str, cells: Sequence[str] | None, read: Callable[[str], float]) -> np.ndarray | None:
    if cells is None:
        return None
    try:
        return np.array([read(cell) for cell in cells])
    except ValueError as error:
        raise DataError(f"{name}: the label {error}") from None


def _number(cell: str) -> float:
    """A finite number in a cell.

    Raises:
        ValueError: it is none; the message does not have the cell.
    """
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError("is not a finite number")
    return value


def _flag(cell: str) -> int:
    if cell not in ("0", "1"):
        raise ValueError("is neither 0 nor 1")
    return int(cell)
