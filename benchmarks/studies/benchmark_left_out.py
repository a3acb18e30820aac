"""Is a network of use to a set that it was not pretrained on? One set is left out of each pretraining.

The document is ``configs/benchmark-nano.yaml`` with fewer steps; a network that sees all four sets for as many steps is
what the others are compared with. What votes is the default of the product, with a tenth of the labels.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from benchmarks.studies.benchmark_reads import NETWORK_READS, Frozen, Voter, found, real_set, tenth
from benchmarks.studies.benchmark_tries import DEFAULT, MEAN, SEEDS, TRIES, scored
from benchmarks.studies.paired import interval
from benchmarks.studies.recipe import PUBLISHED
from benchmarks.studies.runs import ROOT, pretrained, shards, source
from benchmarks.table import Table
from data_shards.support.errors import MedformerError
from data_shards.support.files import read_json, write_json
from finetune.fit.linear import RAW

NOTHING = "nothing"
_READS = {"network": tuple(Voter(read) for read in NETWORK_READS), "vote": TRIES[DEFAULT], "pixels": (Voter(RAW),)}
"""What is read: the network alone, the default, raw pixels alone."""


def document(folder: Path, left_out: str, steps: int) -> dict[str, Any]:
    """The pretraining of the released network, shorter, without one of its sets.

    Args:
        folder: of the study, where shards are.
        left_out: name of a set, or :data:`NOTHING`.
        steps: of the optimizer; the schedule ends with them.
    """
    run: dict[str, Any] = yaml.safe_load((ROOT / "configs" / "benchmark-nano.yaml").read_text())
    kept = [each for each in run["data"]["datasets"] if Path(each["path"]).name != left_out]
    run["data"]["datasets"] = [
        {**each, "path": str(shards(folder / "shards", source(Path(each["path"]).name)))} for each in kept
    ]
    run["out"] = str(folder / f"without-{left_out}-{steps}")
    run["schedule"]["max_steps"] = steps
    return run


def place(folder: Path, name: str, left_out: str, steps: int) -> Path:
    """Where the scores on a set are kept."""
    return folder / "left-out" / f"{name}-without-{left_out}-{steps}.json"


def run(folder: Path, steps: int) -> None:
    """Pretrain and read what is missing: the network of all sets first."""
    for left_out in (NOTHING, *PUBLISHED):
        names = list(PUBLISHED) if left_out == NOTHING else [left_out]
        missing = [name for name in names if not place(folder, name, left_out, steps).is_file()]
        if missing:
            bundle = pretrained(document(folder, left_out, steps))
            for name in missing:
                place(folder, name, left_out, steps).parent.mkdir(parents=True, exist_ok=True)
                write_json(place(folder, name, left_out, steps), _scores(folder, name, bundle))


def _scores(folder: Path, name: str, bundle: Path) -> dict[str, list[float]]:
    splits = real_set(folder, name)
    network = bundle.parent.name
    frozen = Frozen(folder, network, bundle, name, splits, SEEDS)
    areas: dict[str, list[float]] = {what: [] for what in _READS}
    for (what, voters), seed in itertools.product(_READS.items(), SEEDS):
        for voter in voters:
            frozen.fit(voter, seed)
        said = [each for voter in voters if (each := found(folder, network, name, voter, seed)) is not None]
        given = splits["train"][tenth(folder, splits, seed).positions]
        areas[what].append(scored(given, splits["test"], said)[1])
    return areas


def table(folder: Path, steps: int) -> Table:
    """The sets of which both networks are there, and their mean where all are."""
    scores: dict[str, dict[str, dict[str, list[float]]]] = {}
    for name in PUBLISHED:
        files = {key: place(folder, name, each, steps) for key, each in (("all", NOTHING), ("without", name))}
        if all(file.is_file() for file in files.values()):
            scores[name] = {key: read_json(file, MedformerError) for key, file in files.items()}
    if len(scores) == len(PUBLISHED):
        scores[MEAN] = {
            key: {what: np.mean([each[key][what] for each in scores.values()], axis=0).tolist() for what in _READS}
            for key in ("all", "without")
        }
    rows = []
    for name, each in scores.items():
        for what in ("network", "vote"):
            with_it, without, pixels = each["all"][what], each["without"][what], each["without"]["pixels"]
            means = (f"{np.mean(values):.3f}" for values in (pixels, with_it, without))
            differences = (interval(np.subtract(without, other).tolist()) for other in (with_it, pixels))
            rows.append((name, what, *means, *differences))
    return Table(
        title="A set that pretraining has not seen",
        command=f"python -m benchmarks.studies benchmark FOLDER steps={steps}",
        columns=("set", "read", "raw pixels", "pretrained on all four", "without this set",
                 "less pretrained on all", "less raw pixels"),
        rows=tuple(rows),
        remarks=f"Test AUC with a tenth of the labels, frozen, mean of {len(SEEDS)} draws; differences with 95 % t "
        f"intervals over draws. Pretraining: {steps} steps of configs/benchmark-nano.yaml, seed 0, one of each kind, "
        "so the intervals know nothing of other seeds of it. Network: its three reads; vote: with raw pixels. "
        f"torch {torch.__version__}.",
    )  # fmt: skip
