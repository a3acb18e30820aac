"""The predictions that an estimate rests on, as rows of ``predictions.csv``: all that a report needs of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finetune.cases import Cases
from finetune.classifier.estimate import Estimate
from finetune.predictions import rows_of
from finetune.tables import said_columns


def estimated_rows(cases: Cases, estimate: Estimate, split: str) -> list[dict[str, Any]]:
    """One row per case: what :func:`~finetune.predictions.rows_of` tells, and more.

    ``subject`` is a number that tells which cases belong together, by order of appearance, and names nobody. ``at
    threshold`` is the class at the threshold that was chosen within the labels. Of a repeated cross-validation the
    probabilities are the mean over the repeats, and those of each stand in columns that begin with ``repeat``.

    Args:
        cases: that were scored.
        estimate: of them.
        split: where they are from.
    """
    target = cases.target
    mean_NC = estimate.probabilities.mean(axis=0)
    rows = rows_of(cases, mean_NC, split=split, prediction=estimate.prediction, target=target)
    if cases.subjects is not None:
        numbers = {subject: n for n, subject in enumerate(dict.fromkeys(cases.subjects.tolist()), 1)}
        for row, subject in zip(rows, cases.subjects.tolist(), strict=True):
            row["subject"] = numbers[subject]
    if estimate.decided is not None:
        for row, above in zip(rows, estimate.decided, strict=True):
            row["at threshold"] = target.classes[int(above)]
    if len(estimate.probabilities) > 1:
        for number, said_NC in enumerate(estimate.probabilities, 1):
            for row, values_C in zip(rows, said_NC, strict=True):
                row |= {f"repeat {number}: {name}": said for name, said in said_columns(target, values_C).items()}
    return rows


def data_summary(splits: Mapping[str, Cases], given: Cases) -> dict[str, Any]:
    """What a report tells of the data: counts by split and of the labels that were given; warnings of reading.

    Args:
        splits: all of them.
        given: the labelled cases that were fitted on.
    """
    parts = {name: _counted(cases) for name, cases in splits.items()}
    warnings = dict.fromkeys(warning for cases in (*splits.values(), given) for warning in cases.warnings)
    return {"splits": parts, "given": _counted(given), "warnings": list(warnings)}


def _counted(cases: Cases) -> dict[str, Any]:
    found: dict[str, Any] = {"cases": len(cases)}
    if cases.subjects is not None:
        found["subjects"] = len(set(cases.subjects.tolist()))
    if cases.labels is None:
        return found
    if cases.target.classifies:
        return {**found, "classes": cases.target.counts(cases.labels)}
    columns = zip(cases.target.classes, cases.labels.T, strict=True)
    numbers = {name: {"lowest": v.min(), "mean": v.mean(), "highest": v.max()} for name, v in columns}
    return {**found, "numbers": {name: {key: float(v) for key, v in of.items()} for name, of in numbers.items()}}
