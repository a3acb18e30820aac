"""Which reads, heads, strategies and ensembles are worth their price with few labels, on five real sets.

``python -m benchmarks.studies strategies FOLDER``. Each arm is fitted to the same draws of labels, five of them at 10
and 50 per class and five seeds with all labels, and compared with the plain one: a linear head on the frozen embedding.
It is scored twice: on the training images that the draw left (with all labels: by cross-validation), where choices are
made, and once on the test split. Arms that train the backbone take most of the time; what has been computed is kept in
the folder, a file for each fit, and a run that was stopped goes on. What is not there yet is left out of the table.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.studies.draws import NETWORK, SEEDS, Splits, fit, found, network, real_sets, stacked
from benchmarks.studies.paired import interval
from benchmarks.table import Table
from finetune.cases import Cases
from finetune.scores.bootstrap import paired_difference
from finetune.scores.metrics import auc
from finetune.study.arms import Arm

BUDGETS = ("10", "50", "all")
BASELINE = "embedding"
_CHEAP: Mapping[str, dict[str, Any]] = {
    BASELINE: {"head_options": {"reads": "embedding"}},
    "mean": {"head_options": {"reads": "mean"}},
    "mean and spread": {"head_options": {"reads": "mean_spread"}},
    "embedding, mean and spread": {"head_options": {"reads": "embedding_mean_spread"}},
    "tangent": {"head_options": {"reads": "tangent"}},
    "vote of four": {},
    "raw pixels": {"head_options": {"reads": "raw"}},
    "ensemble of folds": {"ensemble": "folds"},
    "attention": {"head": "attention"},
    "attention, 5 seeds": {"head": "attention", "ensemble": "seeds"},
}
_GRADIENT: Mapping[str, dict[str, Any]] = {
    "two stages": {"strategy": "two_stage"},
    "low rank": {"strategy": "low_rank"},
    "full": {"strategy": "full"},
    "selective": {"strategy": "selective"},
    "two stages, balanced sampler": {"strategy": "two_stage", "sampler": "balanced", "class_weight": None},
    "two stages, mixup": {"strategy": "two_stage", "mixup": 0.2},
    "two stages, 3 snapshots": {"strategy": "two_stage", "ensemble": "snapshots", "members": 3},
}
_SCHEDULE = {"max_steps": 100, "learning_rate": 1e-3, "calibrate": False}
"""One schedule for all arms that train the backbone: choosing it is tried by the comparison of ``evaluate``."""


def arms() -> Iterator[Arm]:
    """The cheap ones first."""
    for name, params in _CHEAP.items():
        yield Arm(name, "pretrained", params)
    yield Arm("from scratch", "random", {"strategy": "full", **_SCHEDULE, "layer_decay": 1.0})
    for name, params in _GRADIENT.items():
        yield Arm(name, "pretrained", {**params, **_SCHEDULE})


def run(folder: Path) -> Table:
    """Pretrain what is missing, fit what is missing, and put it together."""
    sets, model = dict(real_sets(folder)), network(folder)
    # All labels last: their cross-validations take the most time.
    for budgets in (("10", "50"), ("all",)):
        for arm in arms():
            for budget, (name, splits), seed in itertools.product(budgets, sets.items(), SEEDS):
                fit(folder, name, splits, budget, seed, arm, model)
    return table(folder, sets)


def table(folder: Path, sets: Mapping[str, Splits]) -> Table:
    """Differences from the plain arm, of what is there."""
    rows = []
    for arm in arms():
        for budget in BUDGETS:
            for name, splits in sets.items():
                row = _row(folder, name, splits["test"], budget, arm.name)
                if row is not None:
                    rows.append((arm.name, budget, name, *row))
    return Table(
        title="Reads, heads, strategies and ensembles with few labels",
        command="python -m benchmarks.studies strategies FOLDER",
        columns=("arm", "labels per class", "set", "within", "gain within", "test", "gain on test"),
        rows=tuple(rows),
        remarks=f"AUC, mean of {len(SEEDS)} draws of labels (seeds 0 to {SEEDS[-1]}). Within: on the training images "
        "that the draw left, with all labels by 5-fold cross-validation; its gain over the linear head on the frozen "
        "embedding has a 95 % t interval over draws. Test: each arm and draw predicted it once; the gain has a 95 % "
        f"interval over test subjects of the mean difference over draws. {NETWORK}. "
        "Arms that train the backbone: 100 steps, rate 0.001. hippocampus: is the share of the anterior "
        "part above the training subjects' median? pneumoniamnist is not the official file. "
        f"torch {torch.__version__}.",
    )


def _row(folder: Path, name: str, test: Cases, budget: str, arm: str) -> tuple[str, str, str, str] | None:
    mine, plain = found(folder, name, budget, arm), found(folder, name, budget, BASELINE)
    if mine is None or plain is None:
        return None
    within = [each["within"] for each in mine]
    differences = [one["within"] - other["within"] for one, other in zip(mine, plain, strict=True)]
    gain = "-" if arm == BASELINE or np.isnan(differences).any() else interval(differences)
    stacks = stacked(mine), stacked(plain)
    labels = test.known_labels
    mean = float(np.mean([auc(labels, said, test.task) for said in stacks[0]]))
    over = paired_difference(auc, labels, stacks[0], stacks[1], test.task, seed=0, subjects=test.subjects)
    on_test = "-" if arm == BASELINE else f"{over.estimate:+.3f} [{over.low:+.3f}, {over.high:+.3f}]"
    written = "-" if np.isnan(within).any() else f"{np.mean(within):.3f}"
    return written, gain, f"{mean:.3f}", on_test
