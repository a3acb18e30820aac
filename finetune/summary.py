"""What the rows of a comparison say together: means, and paired differences with their intervals over seeds."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data_shards.support.files import write_atomic, write_json
from finetune.comparison import FINETUNED, PRETRAINED, RANDOM, RAW, SCRATCH, ComparisonRow
from finetune.student import MeanInterval, mean_interval

METRICS = ("auc", "acc", "balanced_acc")
PAIRS = ((FINETUNED, SCRATCH), (PRETRAINED, RANDOM), (PRETRAINED, RAW), (FINETUNED, RAW))


@dataclass(frozen=True)
class ArmSummary:
    """One score of one arm over the seeds of a dataset and a budget."""

    dataset: str
    official: bool
    budget: str
    arm: str
    metric: str
    over_seeds: MeanInterval


@dataclass(frozen=True)
class PairSummary:
    """The difference ``arm`` minus ``baseline`` of one score, paired by index file.

    The interval is over draws of labels and fresh weights, for this test split.
    """

    dataset: str
    official: bool
    budget: str
    arm: str
    baseline: str
    metric: str
    over_seeds: MeanInterval


@dataclass(frozen=True)
class Summary:
    """Everything a comparison says."""

    arms: tuple[ArmSummary, ...]
    pairs: tuple[PairSummary, ...]


def summarise(rows: Iterable[ComparisonRow]) -> Summary:
    """Means per arm, and differences of the arms of :data:`PAIRS` where both are there."""
    groups: dict[tuple[str, bool, str], list[ComparisonRow]] = {}
    for row in rows:
        groups.setdefault((row.dataset, row.official, row.budget), []).append(row)
    arms, pairs = [], []
    for key, members in groups.items():
        for metric in METRICS:
            scores: dict[str, dict[str, float]] = {}
            for row in members:
                scores.setdefault(row.arm, {})[row.index_sha256] = getattr(row.scores, metric).estimate
            arms += [ArmSummary(*key, arm, metric, mean_interval(list(by.values()))) for arm, by in scores.items()]
            for arm, baseline in PAIRS:
                draws = [draw for draw in scores.get(arm, ()) if draw in scores.get(baseline, ())]
                if draws:
                    gains = [scores[arm][draw] - scores[baseline][draw] for draw in draws]
                    pairs.append(PairSummary(*key, arm, baseline, metric, mean_interval(gains)))
    return Summary(tuple(arms), tuple(pairs))


def write_comparison(rows: Sequence[ComparisonRow], folder: Path) -> Summary:
    """Write ``comparison.json`` (rows and summary) and ``comparison.csv`` (one line per row) into ``folder``."""
    summary = summarise(rows)
    document = {"rows": [row.as_json() for row in rows], "summary": asdict(summary)}
    write_json(folder / "comparison.json", finite(document))
    write_atomic(folder / "comparison.csv", as_csv([_columns(row) for row in rows]))
    return summary


def as_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Rows with the same keys as a CSV text."""
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue()


def finite(document: Any) -> Any:
    """The document with NaN and infinity as null, which is all that JSON has for them."""
    if isinstance(document, dict):
        return {str(key): finite(value) for key, value in document.items()}
    if isinstance(document, list | tuple):
        return [finite(value) for value in document]
    if isinstance(document, float) and not math.isfinite(document):
        return None
    return document


def _columns(row: ComparisonRow) -> dict[str, Any]:
    plain = {name: value for name, value in vars(row).items() if name not in ("scores", "chosen")}
    chosen = {name: value for name, value in row.chosen.items() if name != "held_out_loss"}
    return {**plain, "chosen": json.dumps(finite(chosen), sort_keys=True), **row.scores.as_columns()}
