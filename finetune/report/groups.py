"""Scores by group: from the rows of the tidy table to the page."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from finetune.report.document import Estimate, GroupResult

_SCORES = {"auc": "auc", "accuracy": "acc", "balanced_accuracy": "balanced_acc"}
"""Scores of the page, and what the table calls them."""
_SAYS = ("dataset", "group_by", "model", "weights", "protocol", "arm", "budget")
"""What tells apart whose predictions a row is of."""

Row = Mapping[str, Any]


def group_results(table: Iterable[Row], datasets: Collection[str]) -> tuple[GroupResult, ...]:
    """One result for each set of predictions and group, those of one set beside each other.

    Args:
        table: rows as :mod:`finetune.study.tidy` makes them; those of all cases and of the constant are left out, which
            stands beside each other row.
        datasets: those whose labels are classes.
    """
    found: dict[tuple[Any, ...], dict[str, dict[str, list[Row]]]] = {}
    for row in table:
        if row["group_by"] and row["model"] != "constant" and row["dataset"] in datasets:
            by_group = found.setdefault(tuple(row[name] for name in _SAYS), {})
            by_group.setdefault(row["group"], {}).setdefault(row["metric"], []).append(row)
    return tuple(_result(by_metric) for by_group in found.values() for by_metric in by_group.values())


def _result(by_metric: Mapping[str, Sequence[Row]]) -> GroupResult:
    decided = by_metric["acc"]
    row = decided[0]
    return GroupResult(
        dataset=row["dataset"],
        group_by=row["group_by"],
        group=row["group"],
        model=row["model"],
        weights=row["weights"],
        arm=row["arm"],
        labels=row["budget"],
        draws=len(decided),
        images=row["images"],
        subjects=row["subjects"],
        **{name: _estimate(by_metric.get(metric, ())) for name, metric in _SCORES.items()},
        constant=_defined(row["constant"]),
        lacking=row["lacking"],
    )


def _estimate(rows: Sequence[Row]) -> Estimate:
    """The mean over draws; of a single one with its interval over subjects."""
    value = _defined(fmean(row["value"] for row in rows)) if rows else None
    low, high = (_defined(rows[0][end]) if len(rows) == 1 else None for end in ("low", "high"))
    return Estimate(value=value, low=low, high=high)


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value
