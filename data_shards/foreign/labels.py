"""The label of a foreign sample: a number, a word or a list of them, in whatever spelling, as a vector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_shards.sources.tables.cells import MISSING, flag, is_missing, whole_number
from data_shards.sources.tables.privacy import kept_number, kept_value
from data_shards.support.errors import DataError
from data_shards.vocabulary import Task

_CLASSES = (Task.binary, Task.multiclass, Task.ordinal)


@dataclass(frozen=True)
class ForeignLabels:
    """How labels are read.

    Attributes:
        task: of the card; classes are whole numbers, measurements are not.
        classes: of the card: name of each value. A label is one of them where there are any.
        missing: spellings of no label.
        dtype: int64 or float64; None where the label decides.
        name: where the label is; an age is kept as an age may be.
    """

    task: Task
    classes: Mapping[int, str]
    missing: Sequence[str] = MISSING
    dtype: str | None = None
    name: str = ""

    def vector(self, value: Any) -> np.ndarray | None:
        """The label as numbers; None when it says nothing.

        Args:
            value: what JSON says of it, or text that is no JSON.

        Raises:
            DataError: it is no label; the message completes a sentence and does not repeat it.
        """
        values = value if isinstance(value, list) else [value]
        nothing = [self._is_missing(item) for item in values]
        if all(nothing) and values:
            return None
        if any(nothing) or not all(isinstance(item, int | float | str) for item in values):
            raise DataError("expected a number, the name of a class, or a list of these")
        numbers = [self._number(item) for item in values]
        whole = all(isinstance(item, int) for item in numbers)
        if self.dtype == "int64" and not whole:
            raise DataError("not a whole number as before; label_dtype=float64 takes both")
        try:
            return np.array(numbers, self.dtype or ("i8" if whole else "f8"))
        except OverflowError:
            raise DataError("a number that is too large") from None

    def _is_missing(self, item: Any) -> bool:
        if item is None or isinstance(item, bool):
            return item is None
        text = str(int(item) if isinstance(item, float) and item.is_integer() else item).strip()
        return is_missing(text, self.missing) and text not in self.classes.values()

    def _number(self, item: int | float | str) -> int | float:
        if self.task is Task.multilabel:
            said = flag(item.strip() if isinstance(item, str) else repr(item))
            if said is None:
                raise DataError("says neither yes nor no")
            return int(said)
        value = self._value(item)
        if self.task in _CLASSES and isinstance(value, float) and value.is_integer():
            value = int(value)
        if self.task in _CLASSES and self.classes and value not in self.classes:
            known = ", ".join(map(str, sorted(self.classes)))
            raise DataError(f"is none of the classes of the card, {known}; missing lists what is no label")
        return value

    def _value(self, item: int | float | str) -> int | float:
        if not isinstance(item, str):
            return kept_value(item, self.name)
        text = item.strip()
        by_name = {name: value for value, name in self.classes.items()}
        if text in by_name:
            return by_name[text]
        whole = whole_number(text)
        return kept_value(whole, self.name) if whole is not None else kept_number(text, self.name)
