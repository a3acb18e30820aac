"""The audit of DBA on few digits: what of its published figures is left when the subset stays as it was drawn.

``python -m benchmarks.studies dba FOLDER``. Every arm has the same subsets of the training split of MNIST, drawn once
and kept as index files, the same network, initial weights and number of optimizer steps. What is chosen is chosen on
parts carved from the subset. Which training images took part in a step is counted where the network is called, whatever
the stepper says. Each fit is kept in a file of its own; a run that was stopped goes on. What is not there is left out.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.studies import mnist
from benchmarks.studies.dba_fits import Arm, Length, Terms, fit, objective_of
from benchmarks.studies.dba_leak import ChangingStepper
from benchmarks.studies.paired import interval, limits
from benchmarks.table import Table
from data_shards.support.files import write_json
from finetune.steppers import STEPPERS
from finetune.study.compare import read_or_draw
from finetune.subsets import Budget

SEEDS = range(5)
COMMAND = "python -m benchmarks.studies dba FOLDER"
BUDGETS: Mapping[str, tuple[Budget, int, int]] = {
    "1 %": (Budget(fraction=0.01), 300, 6),
    "10 per class": (Budget(per_class=10), 300, 6),
    "10 %": (Budget(fraction=0.1), 50, 1),
    "100 %": (Budget(fraction=1.0), 10, 1),
}
"""What is drawn, passes over it by the default batch size, and passes between two looks."""
GRID = tuple(Terms(*each) for each in itertools.product((0.01, 0.03, 0.1), (1e-4, 1e-3, 1e-2), (32, 128)))
BASELINE = "SGD, tuned"
CHANGES = (0.02, 0.1, 0.3, 1.0)
_ALL = (
    Arm("SGD"),
    Arm(BASELINE, terms=GRID),
    Arm("Adam", adam=True),
    *(
        Arm(f"DBA + {optimizer}, {rule.replace('_', ' ')}", "dba", {"selection": rule}, adam=optimizer == "Adam")
        for optimizer in ("SGD", "Adam")
        for rule in ("gradient_norm", "variance_norm", "random")
    ),
    Arm("DBA + SGD, gradient norm, tuned", "dba", {"selection": "gradient_norm"}, terms=GRID),
    Arm("EDBA + SGD", "edba"),
    Arm("SGD, batch size changes, p = 1", ChangingStepper, {"probability": 1.0, "redrawn": False}),
    *(
        Arm(f"leak control, p = {p:g}", ChangingStepper, {"probability": p, "redrawn": True}, redraws=True)
        for p in CHANGES
    ),
)

Row = dict[str, Any]


def arms() -> list[Arm]:
    """Those whose stepper there is."""
    return [arm for arm in _ALL if not isinstance(arm.stepper, str) or arm.stepper in STEPPERS]


def run(folder: Path) -> list[Table]:
    """Fit what is missing, and put it together."""
    pool = mnist.cases()
    images_N784, digit_N = (mnist.normalised(mnist.digits("train")[0]), mnist.digits("train")[1])
    pixels, test_digits = mnist.digits("t10k")
    test = mnist.normalised(pixels), torch.from_numpy(test_digits.astype(np.int64))
    objective = objective_of(digit_N)
    for budget, (allowed, epochs, every) in BUDGETS.items():
        subsets = [read_or_draw(pool, allowed, seed, folder / "subsets") for seed in SEEDS]
        # What chooses among many terms takes the most time, so it comes last.
        for arm, seed in itertools.product(sorted(arms(), key=lambda arm: len(arm.terms)), SEEDS):
            kept = place(folder, budget, arm.name, seed)
            if kept.is_file():
                continue
            kept.parent.mkdir(parents=True, exist_ok=True)
            subset = subsets[seed]
            length = Length.of(len(subset.indices), epochs, every)
            row = fit(arm, images_N784, objective, subset.positions, length, seed, test)
            write_json(kept, {**row, "budget": budget, "seed": seed, "index_sha256": subset.indices_sha256})
    return tables(folder)


def place(folder: Path, budget: str, arm: str, seed: int) -> Path:
    """Where a fit is kept."""
    return folder / "fits" / f"{budget}-{arm}-{seed}.json".replace(" ", "-").replace(",", "").replace("%", "percent")


def tables(folder: Path) -> list[Table]:
    """Accuracies, choices and draws, of what is there."""
    found = {}
    for budget, arm in itertools.product(BUDGETS, _ALL):
        places = [place(folder, budget, arm.name, seed) for seed in SEEDS]
        if all(each.is_file() for each in places):
            found[budget, arm.name] = [json.loads(each.read_text()) for each in places]
    return [accuracies(found), choices(found), draws(found)]


def accuracies(found: Mapping[tuple[str, str], Sequence[Row]]) -> Table:
    """Test accuracy of each arm."""
    rows = []
    for (budget, arm), fits in found.items():
        last = _percent([row["test"][-1] for row in fits])
        validated = [row["test"][row["validated"]] for row in fits if row["validated"] is not None]
        base = found.get((budget, BASELINE))
        gain = "-"
        if base is not None and arm != BASELINE:
            gain = interval(last - _percent([row["test"][-1] for row in base]), 2)
        rows.append((
            budget, arm, _mean(last), _mean(_percent(validated)) if validated else "-",
            _mean(_percent([max(row["test"]) for row in fits])), gain, _range([row["distinct"] for row in fits]),
            _range([row["images"] for row in fits]), _hash(fits),
        ))  # fmt: skip
    steps = {budget: fits[0]["steps"] for (budget, _), fits in found.items()}
    looks = {budget: len(fits[0]["test"]) for (budget, _), fits in found.items()}
    lengths = "; ".join(f"{budget}: {steps[budget]:,} steps and {looks[budget]} looks" for budget in steps)
    return Table(
        title="A subset that stays, and one that is drawn anew",
        command=COMMAND,
        columns=(
            "given",
            "arm",
            "at the end",
            "at the validated step",
            "best look at the test split (not a result)",
            f"gain over {BASELINE}, at the end",
            "distinct images seen",
            "images given",
            "hash of the draws",
        ),
        rows=tuple(rows),
        remarks=f"Accuracy on the test split of MNIST in %, mean of {len(SEEDS)} draws (seeds 0 to {SEEDS[-1]}) with "
        "its 95 % t interval; gains are paired by draw. MLP 784-64-10. SGD (Nesterov, momentum 0.9) and Adam at rate "
        "0.01, weight decay 0.0001, batches of 128 or all, constant rates; tuned: the best of "
        f"{len(GRID)} by held-out parts of the subset. The validated step is chosen there too. The best look at the "
        "test split is the published protocol: it chooses by what it reports. All arms of a subset take as many "
        f"optimizer steps: {lengths}. Leak control: SGD, no DBA; after each epoch the batch size changes by 8 with "
        "probability p, and a change draws the subset anew. The hash is over those of the index files of the draws; "
        f"draws keep the share of each class. torch {torch.__version__}.",
    )


def choices(found: Mapping[tuple[str, str], Sequence[Row]]) -> Table:
    """What was chosen within the subset."""
    rows = []
    for (budget, arm), fits in found.items():
        if fits[0]["validated"] is None:
            continue
        counts = Counter(str(Terms(**row["terms"])) for row in fits)
        share = [(row["validated"] + 1) / len(row["test"]) for row in fits]
        terms = "; ".join(f"{name} ({count})" for name, count in counts.most_common())
        rows.append((budget, arm, terms, f"{100 * min(share):.0f} to {100 * max(share):.0f} %"))
    return Table(
        title="What was chosen within the subsets",
        command=COMMAND,
        columns=("given", "arm", "rate, weight decay, batch size (draws)", "validated step, share of all"),
        rows=tuple(rows),
        remarks="By the mean accuracy on what is held out: a fifth of the subset, or each of five folds in turn where "
        "a class has fewer than 15 images.",
    )


def draws(found: Mapping[tuple[str, str], Sequence[Row]]) -> Table:
    """The digest of each index file."""
    rows = {
        (budget, str(row["seed"]), str(row["images"]), row["index_sha256"]): None
        for (budget, _), fits in found.items()
        for row in fits
    }
    return Table(
        title="The draws",
        command=COMMAND,
        columns=("given", "seed", "images", "SHA-256 of the indices"),
        rows=tuple(rows),
        remarks="Each is one index file, in `FOLDER/subsets`; every arm read the same.",
    )


def _percent(values: Sequence[float]) -> np.ndarray:
    return 100 * np.asarray(values, dtype=np.float64)


def _mean(values: np.ndarray) -> str:
    mean, low, high = limits(values)
    return f"{mean:.2f} [{low:.2f}, {high:.2f}]"


def _range(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _hash(fits: Sequence[Row]) -> str:
    return hashlib.sha256("".join(row["index_sha256"] for row in fits).encode()).hexdigest()[:12]
