"""The audit of DBA on medical images with few labels, and of rules that its idea suggests.

``python -m benchmarks.studies dba_medical FOLDER``. Every arm has the same draws of labels, kept as index files, the
same frozen features, network and initial weights, and as many choices: rate, weight decay and when to end, by the
held-out loss within the draw. Which images took part in a step is counted where the network is called, whatever a
stepper says. The options of steppers are their defaults. The test split is predicted once by each fit, which is kept in
a file of its own; a run that was stopped goes on. What is not there is left out of the tables.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.studies.dba_fits import Arm, Length, Terms
from benchmarks.studies.dba_medical_fits import Given, fit
from benchmarks.studies.frozen_sets import (
    BUDGETS,
    NETWORK,
    READ,
    SEEDS,
    SIDE,
    Seen,
    frozen_set,
    network,
    real_sets,
    subset_of,
)
from benchmarks.studies.paired import interval
from benchmarks.table import Table
from data_shards.support.files import write_json

COMMAND = "python -m benchmarks.studies dba_medical FOLDER"
FEWEST = 5
"""A row has at least so many draws."""
LENGTH = Length(looks=4, steps=15)
BATCH = 16
GRID = tuple(Terms(*each) for each in itertools.product((0.01, 0.1), (1e-3, 3e-2), (BATCH,)))
BASELINE = "SGD, tuned"
OPTIMUM = "linear optimum"
_TRAINED = (
    Arm(BASELINE, terms=GRID),
    Arm("agreement", "agreement", terms=GRID),
    Arm("variance adapted", "variance_adapted", terms=GRID),
    Arm("DBA, gradient norm", "dba", {"selection": "gradient_norm"}, terms=GRID),
    Arm("DBA, variance norm", "dba", {"selection": "variance_norm"}, terms=GRID),
    Arm("importance", "importance", terms=GRID),
    Arm("norm test", "norm_test", terms=GRID),
    Arm("EDBA", "edba", terms=GRID),
    Arm("SGD", terms=(Terms(0.01, 1e-4, BATCH),)),
)
ARMS: Mapping[str, Arm | None] = {**{arm.name: arm for arm in _TRAINED}, OPTIMUM: None}

Row = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """What is asked of all arms on all sets.

    Attributes:
        seen: what the perceptron sees.
        budget: labels per class.
        flipped: share of wrong labels.
    """

    seen: Seen
    budget: str
    flipped: float = 0.0

    def __str__(self) -> str:
        return f"{self.seen}-{self.budget}-{100 * self.flipped:.0f}"


WRONG = 0.3
SETTINGS = (
    Setting("pixels", "10"),
    Setting("pixels", "10", WRONG),
    Setting("pixels", "50"),
    Setting("pixels", "50", WRONG),
    Setting("pretrained", "10"),
    Setting("pretrained", "50"),
    Setting("pretrained", "10", WRONG),
    Setting("pretrained", "50", WRONG),
    Setting("random", "10"),
    Setting("random", "50"),
)


def run(folder: Path) -> list[Table]:
    """Fit what is missing, and put it together."""
    sets = real_sets(folder)
    model = cache(lambda: network(folder))
    vectors = cache(lambda name, seen, seed: frozen_set(folder, name, sets[name], seen, seed, model))
    subset = cache(lambda name, budget, seed: subset_of(folder, sets[name], budget, seed))
    for setting, arm, seed, name in itertools.product(SETTINGS, ARMS, SEEDS, sets):
        kept = place(folder, setting, name, arm, seed)
        if kept.is_file():
            continue
        drawn, data = subset(name, setting.budget, seed), vectors(name, setting.seen, seed)
        row = fit(ARMS[arm], data, Given.of(data, drawn.positions, setting.flipped, seed), LENGTH, seed)
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_json(kept, {**row, "arm": arm, "seed": seed, "index_sha256": drawn.indices_sha256})
    return tables(folder, list(sets))


def place(folder: Path, setting: Setting, name: str, arm: str, seed: int) -> Path:
    """Where a fit is kept."""
    return folder / "dba-medical" / str(setting) / name / f"{arm.replace(' ', '-').replace(',', '')}-{seed}.json"


def tables(folder: Path, names: Sequence[str]) -> list[Table]:
    """AUC, accuracy, images and choices, of what is there."""
    found = {}
    for setting, name, arm in itertools.product(SETTINGS, names, ARMS):
        places = [place(folder, setting, name, arm, seed) for seed in SEEDS]
        rows = {seed: json.loads(each.read_text()) for seed, each in enumerate(places) if each.is_file()}
        if len(rows) >= FEWEST:
            found[setting, name, arm] = rows
    return [scores(found, names, "auc"), scores(found, names, "accuracy"), images(found, names), choices(found, names)]


Found = Mapping[tuple[Setting, str, str], Mapping[int, Row]]


def gains(mine: Mapping[int, Row], base: Mapping[int, Row], score: str) -> dict[int, float]:
    """The difference on each draw that both have."""
    return {seed: mine[seed][score] - base[seed][score] for seed in mine.keys() & base.keys()}


def scores(found: Found, names: Sequence[str], score: str) -> Table:
    """Of every arm, and its gain over the tuned baseline on the same draws."""
    rows = []
    for setting, arm in itertools.product(SETTINGS, ARMS):
        cells, by_set = [], []
        for name in names:
            mine, base = found.get((setting, name, arm)), found.get((setting, name, BASELINE))
            if mine is None or base is None:
                cells.append("-")
                continue
            gain = gains(mine, base, score)
            by_set.append(gain)
            mean = f"{np.mean([row[score] for row in mine.values()]):.3f}"
            cells.append(mean if arm == BASELINE else f"{mean}, {interval(_values(gain))}")
        if not by_set:
            continue
        shared = set.intersection(*(set(gain) for gain in by_set))
        over = [float(np.mean([gain[seed] for gain in by_set])) for seed in sorted(shared)]
        draws = sorted({len(gain) for gain in by_set})
        rows.append((
            setting.seen, setting.budget, f"{100 * setting.flipped:.0f} %", arm, *cells,
            "-" if arm == BASELINE or len(by_set) < len(names) else interval(over),
            str(draws[0]) if len(draws) == 1 else f"{draws[0]} to {draws[-1]}",
        ))  # fmt: skip
    return Table(
        title={"auc": "AUC on medical images", "accuracy": "Accuracy on medical images"}[score],
        command=COMMAND,
        columns=("input", "labels per class", "wrong labels", "arm", *names, "gain, mean of the sets", "draws"),
        rows=tuple(rows),
        remarks=f"Test split, predicted once by each fit: mean over draws, and gain over {BASELINE} on the same draws "
        "with its 95 % t interval over draws. A perceptron with 64 hidden units on pixels (volumes at "
        f"{SIDE} voxels a side), or on features ({READ}) of a frozen network, pretrained or from random weights; all "
        "standardised over the draw. SGD with Nesterov momentum 0.9 and constant rate, batches of "
        f"{BATCH}. Every arm but SGD, whose terms are the usual ones (rate 0.01, weight decay 0.0001, {LENGTH.total} "
        f"steps), chooses among {len(GRID)} pairs of rate and weight decay and {LENGTH.looks} lengths of up to "
        f"{LENGTH.total} steps, by the log loss of a part carved from its labels, wrong ones too. Each stepper has "
        f"its default options. {OPTIMUM}: penalised logistic regression on the same input, its strength by "
        f"cross-validation. Network, pretrained: {NETWORK}. pneumoniamnist is not the official file; grades of "
        f"retinamnist are taken for classes. torch {torch.__version__}.",
    )


def images(found: Found, names: Sequence[str]) -> Table:
    """How many different images each draw gave and each fit saw."""
    rows = []
    for name, budget in itertools.product(names, BUDGETS):
        fits = [mine for (setting, at, _), mine in found.items() if (at, setting.budget) == (name, budget)]
        every = [row for mine in fits for row in mine.values()]
        if not every:
            continue
        draws = {row["seed"]: row["index_sha256"] for row in every}
        digest = hashlib.sha256("".join(draws[seed] for seed in sorted(draws)).encode()).hexdigest()[:12]
        seen = [row["distinct"] for row in every]
        rows.append((
            name, budget, _range([row["images"] for row in every]), _range(seen), str(len(every)),
            str(len(draws)), digest,
        ))  # fmt: skip
    return Table(
        title="Images given and seen",
        command=COMMAND,
        columns=(
            "set",
            "labels per class",
            "images given",
            "distinct images seen",
            "fits",
            "draws",
            "hash of the draws",
        ),
        rows=tuple(rows),
        remarks="Over all arms, inputs and shares of wrong labels. The hash is over those of the index files of the "
        "draws, in the order of their seeds; they are in `FOLDER/subsets`.",
    )


def choices(found: Found, names: Sequence[str]) -> Table:
    """What was chosen within the draws, and how much of a batch was learned from."""
    rows = []
    for setting, arm in itertools.product(SETTINGS, ARMS):
        fits = [row for name in names for row in found.get((setting, name, arm), {}).values() if "terms" in row]
        if not fits:
            continue
        medians = [float(np.median([row["terms"][key] for row in fits])) for key in ("rate", "weight_decay")]
        steps = float(np.median([row["steps"] for row in fits]))
        cells = [f"{np.mean(values):.1f}" if values else "-" for values in _sizes(fits)]
        rows.append((
            setting.seen, setting.budget, f"{100 * setting.flipped:.0f} %", arm, *(f"{each:g}" for each in medians),
            f"{steps:g}", *cells,
        ))  # fmt: skip
    return Table(
        title="What was chosen",
        command=COMMAND,
        columns=(
            "input",
            "labels per class",
            "wrong labels",
            "arm",
            "rate",
            "weight decay",
            "steps",
            "batch",
            "of it",
        ),
        rows=tuple(rows),
        remarks="Medians over sets and draws; batch: mean size, of it: mean number of cases that was learned from, "
        "where a stepper tells of them.",
    )


def _sizes(fits: Sequence[Row]) -> Iterator[list[float]]:
    for name in ("mean_batch_size", "mean_selected"):
        yield [row["report"][name] for row in fits if name in row["report"]]


def _values(gain: Mapping[int, float]) -> list[float]:
    return [gain[seed] for seed in sorted(gain)]


def _range(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"
