"""Rows of results as text."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from finetune.targets import Target


def as_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as a CSV text; what a row does not have is empty."""
    text = io.StringIO()
    if rows:
        columns = list(dict.fromkeys(name for row in rows for name in row))
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue()


def said_columns(target: Target, values_C: np.ndarray) -> dict[str, str]:
    """A column per class with its probability; per number what is predicted."""
    if not target.classifies:
        return {f"predicted: {n}": f"{v:.10g}" for n, v in zip(target.classes, values_C, strict=True)}
    return {f"p({n})": f"{v:.6f}" for n, v in zip(target.classes, values_C, strict=True)}
