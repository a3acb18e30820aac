"""Values of a data set, checked; messages name the attribute and never quote what it holds."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from data_shards.support.errors import DataError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


def value(dataset: Dataset, keyword: str) -> Any:
    """What the attribute holds; None when it is absent or empty.

    Raises:
        DataError: pydicom cannot convert the bytes.
    """
    try:
        found = dataset.get(keyword)
    except Exception as error:  # pydicom raises anything on damaged bytes, and quotes them
        raise DataError(f"{keyword} cannot be parsed ({type(error).__name__})") from None
    return None if found is None or (hasattr(found, "__len__") and len(found) == 0) else found


def as_numbers(found: Any, keyword: str, count: int | None = None) -> tuple[float, ...] | None:
    """A value as finite floats; None stays None.

    Raises:
        DataError: a part is not a finite number, or there are not ``count`` of them.
    """
    if found is None:
        return None
    parts = found if hasattr(found, "__iter__") and not isinstance(found, str | bytes) else [found]
    try:
        numbers = tuple(float(part) for part in parts)
    except (TypeError, ValueError, OverflowError, ArithmeticError):
        raise DataError(f"{keyword} is not a number") from None
    if not all(map(math.isfinite, numbers)):
        raise DataError(f"{keyword} is not finite")
    if count is not None and len(numbers) != count:
        raise DataError(f"{keyword} holds {len(numbers)} numbers, expected {count}")
    return numbers


def integer(dataset: Dataset, keyword: str, default: int | None = None) -> int:
    """One whole number.

    Raises:
        DataError: it is absent and there is no default, or it is not a whole number.
    """
    numbers = as_numbers(value(dataset, keyword), keyword, 1)
    if numbers is None:
        if default is None:
            raise DataError(f"{keyword} is missing")
        return default
    if numbers[0] != int(numbers[0]):
        raise DataError(f"{keyword} is not a whole number")
    return int(numbers[0])


def text(dataset: Dataset, keyword: str) -> str:
    """The value as text, empty when absent; for comparing only."""
    return joined(value(dataset, keyword))


def joined(found: Any) -> str:
    """A value as text, several joined by a backslash as in the file; empty for None."""
    if found is None or isinstance(found, str):
        return (found or "").strip()
    return "\\".join(map(str, found)) if hasattr(found, "__iter__") else str(found)


def first_item(dataset: Dataset, keyword: str) -> Dataset | None:
    """The first item of a sequence, or None."""
    from pydicom.dataset import Dataset

    found = value(dataset, keyword)
    try:
        item = found[0] if found else None
    except (TypeError, KeyError, IndexError):
        item = None
    return item if isinstance(item, Dataset) else None
