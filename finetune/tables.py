"""Rows of results as text."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from finetune.targets import Target


def as_csv(rows: Sequence[dict[str, Any]], columns: Sequence[str] = ()) -> str:
    """Rows as a CSV text; what a row does not have is empty.

    A float is written with the digits that give back the same float, so that whoever computes from the table gets what
    was computed before it was written.

    Args:
        rows: of the table.
        columns: that lead, and make up the header of a table without rows.
    """
    text = io.StringIO()
    names = list(dict.fromkeys([*columns, *(name for row in rows for name in row)]))
    if names:
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue()


def said_columns(target: Target, values_C: np.ndarray) -> dict[str, float]:
    """A column per class with its probability; per number what is predicted."""
    name = "p({})" if target.classifies else "predicted: {}"
    return {name.format(n): float(v) for n, v in zip(target.classes, values_C, strict=True)}
