"""The released network beside a ResNet-18 that is trained from random weights on the same labels.

Both are arms of ``medformer evaluate``, on the same draws: a linear vote on the frozen network, which is the default of
the product, and the reference recipe of MedMNIST, whose epoch is chosen on a part of the labels that were given. A set
and a budget have a place of their own in the folder, the cheapest first.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.studies.benchmark_tries import MEAN, RELEASED, SEEDS
from benchmarks.studies.paired import interval
from benchmarks.studies.recipe import PUBLISHED
from benchmarks.studies.runs import REASSEMBLED, ROOT, shards, source
from benchmarks.table import Table
from data_shards.support.errors import MedformerError
from data_shards.support.files import read_json
from finetune.study.arms import BASELINE, PRETRAINED
from finetune.study.tidy import JSON

BUDGETS: Mapping[str, tuple[str, str]] = {
    "1 %": ("--fraction", "0.01"),
    "10 %": ("--fraction", "0.1"),
    "10 per class": ("--per-class", "10"),
}
"""Labels, in the words of the tables, and the options that ask for them."""


def place(folder: Path, name: str, budget: str, epochs: int) -> Path:
    """Where the evaluation of a set with a budget is."""
    return folder / "equal" / f"{name}-{budget.replace('%', 'percent').replace(' ', '-')}-{epochs}-epochs"


def run(folder: Path, epochs: int) -> None:
    """Evaluate what is missing.

    Raises:
        CalledProcessError: an evaluation failed, and has said why.
    """
    for budget, name in itertools.product(BUDGETS, PUBLISHED):
        out = place(folder, name, budget, epochs)
        if not (out / JSON).is_file():
            data = shards(folder / "shards", source(name))
            command = [sys.executable, "-m", "medformer", "evaluate", str(RELEASED), "--data", str(data)]
            command += [*BUDGETS[budget], "--strategies", "frozen", "--baselines", "resnet18", "--epochs", str(epochs)]
            command += ["--seeds", *map(str, SEEDS), "--out", str(out)]
            subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def table(folder: Path, epochs: int) -> Table:
    """What is there, and the mean of the sets for budgets of which all are."""
    areas = {
        (budget, name): _areas(place(folder, name, budget, epochs) / JSON, budget)
        for budget, name in itertools.product(BUDGETS, PUBLISHED)
        if (place(folder, name, budget, epochs) / JSON).is_file()
    }
    for budget in BUDGETS:
        found = [areas[budget, name] for name in PUBLISHED if (budget, name) in areas]
        if len(found) == len(PUBLISHED):
            areas[budget, MEAN] = np.mean(found, axis=0)
    return Table(
        title="The same labels for both",
        command=f"python -m benchmarks.studies benchmark FOLDER resnet={epochs}",
        columns=("set", "labels", "ResNet-18 by its recipe", "released network, frozen", "difference",
                 "draws in which it is above"),
        rows=tuple(
            (name, budget, f"{theirs.mean():.3f}", f"{ours.mean():.3f}", interval((ours - theirs).tolist()),
             f"{np.sum(ours > theirs)} of {len(ours)}")
            for (budget, name), (theirs, ours) in areas.items()
        ),
        remarks=f"Test AUC, mean of {len(SEEDS)} draws; differences with their 95 % t interval over draws. Recipe: "
        f"{epochs} epochs of Adam from random weights, the epoch by a carved part of the labels that were given, where "
        "a class has more than one. Frozen: the vote that is the default of the product; raw pixels have a part in it. "
        f"pneumoniamnist is not the official file: {REASSEMBLED}. torch {torch.__version__}.",
    )  # fmt: skip


def _areas(file: Path, budget: str) -> np.ndarray:
    """Test AUC ``(2, draws)`` of the ResNet and of the released network, by seed."""
    found: dict[tuple[str, int], float] = {}
    rows: list[dict[str, Any]] = read_json(file, MedformerError)["rows"]
    for row in rows:
        of_all = not row["class"] and not row["group_by"]
        if of_all and row["protocol"] == "few_label" and row["budget"] == budget and row["metric"] == "auc":
            found[row["arm"], int(row["seed"])] = float(row["value"])
    return np.array([[found[arm, seed] for seed in SEEDS] for arm in (BASELINE, PRETRAINED)])
