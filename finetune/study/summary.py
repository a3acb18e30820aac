"""What the rows of a comparison say together: means, and paired differences with their intervals over seeds."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t

from data_shards.support.files import finite, write_atomic, write_json
from finetune.study.arms import pairs_of
from finetune.study.compare import ComparisonRow
from finetune.tables import as_csv

_LOGGED = ("held_out_loss", "held_out_curve", "training")
"""Of what a fit chose, what is too long for a cell."""

_ALIKE = 1e-12
"""A standard deviation below it is rounding."""


@dataclass(frozen=True)
class MeanInterval:
    """A mean over ``n`` runs, its standard deviation and t interval.

    The deviation is NaN for a single run, and the interval NaN for runs that are all alike, which show no spread.
    """

    mean: float
    sd: float
    low: float
    high: float
    level: float
    n: int


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
    """The difference ``arm`` minus ``baseline`` of one score, paired by seed.

    The interval is over draws of labels and fresh weights, for this test split. ``draws`` says how many different
    index files there were: one where the budget takes all labels there are; then seeds differ in weights and folds.
    """

    dataset: str
    official: bool
    budget: str
    arm: str
    baseline: str
    metric: str
    draws: int
    over_seeds: MeanInterval


@dataclass(frozen=True)
class Summary:
    """Everything a comparison says."""

    arms: tuple[ArmSummary, ...]
    pairs: tuple[PairSummary, ...]


def summarise(rows: Iterable[ComparisonRow]) -> Summary:
    """Means per arm, and differences of the pairs of :func:`~finetune.study.arms.pairs_of`, of every metric."""
    groups: dict[tuple[str, bool, str], list[ComparisonRow]] = {}
    for row in rows:
        groups.setdefault((row.dataset, row.official, row.budget), []).append(row)
    arms, pairs = [], []
    for key, members in groups.items():
        files: dict[int, str] = {row.seed: row.index_sha256 for row in members}
        for metric in members[0].scores.metrics:
            scores: dict[str, dict[int, float]] = {}
            for row in members:
                scores.setdefault(row.arm, {})[row.seed] = row.scores.metric(metric).estimate
            arms += [ArmSummary(*key, arm, metric, mean_interval(list(by.values()))) for arm, by in scores.items()]
            for arm, baseline in pairs_of(list(scores)):
                seeds = [seed for seed in scores.get(arm, ()) if seed in scores.get(baseline, ())]
                if seeds:
                    gains = [scores[arm][seed] - scores[baseline][seed] for seed in seeds]
                    draws = len({files[seed] for seed in seeds})
                    pairs.append(PairSummary(*key, arm, baseline, metric, draws, mean_interval(gains)))
    return Summary(tuple(arms), tuple(pairs))


def mean_interval(values: Sequence[float], level: float = 0.95) -> MeanInterval:
    """The two-sided t interval of the mean of ``values``, taken as independent draws."""
    n = len(values)
    mean = float(np.mean(values))
    sd = float(np.std(values, ddof=1)) if n > 1 else math.nan
    half = float(t.ppf(0.5 + level / 2, n - 1)) * sd / math.sqrt(n) if sd > _ALIKE else math.nan
    return MeanInterval(mean, sd, mean - half, mean + half, level, n)


def remarks(rows: Sequence[ComparisonRow]) -> list[str]:
    """What a reader of the rows has to know, a sentence each: budgets that are not there, classes that are missing."""
    said: dict[str, None] = {}
    for row in rows:
        if row.shortage:
            said[f"{row.dataset}: {row.shortage}."] = None
    for pair in summarise(rows).pairs:
        if pair.draws == 1 and pair.over_seeds.n > 1:
            what = "every seed has the same labels, all there are; intervals are over fresh weights and folds alone"
            said[f"{pair.dataset}, {pair.budget}: {what}."] = None
    for row in rows:
        said |= {f"{row.dataset}: {gap} in the test split; its AUC is not defined.": None for gap in row.scores.lacking}
    return list(said)


def write_comparison(rows: Sequence[ComparisonRow], folder: Path) -> Summary:
    """Write ``comparison.json`` (rows and summary) and ``comparison.csv`` (one line per row) into ``folder``."""
    summary = summarise(rows)
    document = {"rows": [row.as_json() for row in rows], "summary": asdict(summary)}
    write_json(folder / "comparison.json", finite(document))
    write_atomic(folder / "comparison.csv", as_csv([_columns(row) for row in rows]))
    return summary


def _columns(row: ComparisonRow) -> dict[str, Any]:
    plain = {name: value for name, value in vars(row).items() if name not in ("scores", "chosen", "probabilities")}
    chosen = {name: value for name, value in row.chosen.items() if name not in _LOGGED}
    return {**plain, "chosen": json.dumps(finite(chosen), sort_keys=True), **row.scores.as_columns()}
