"""The tables of docs/benchmark.md, of the tables that ``medformer evaluate`` wrote."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.studies.benchmark_tries import GOAL, MEAN
from benchmarks.studies.paired import interval
from benchmarks.studies.recipe import PUBLISHED
from benchmarks.studies.runs import REASSEMBLED
from benchmarks.table import Table
from data_shards.support.errors import MedformerError
from data_shards.support.files import read_json
from finetune.study.arms import PRETRAINED, RANDOM, RAW
from finetune.study.tidy import ALL, JSON

COMMAND = "python -m benchmarks.studies benchmark FOLDER"
BUDGETS = ("1 %", "10 per class", "10 %", "50 per class")
_NOTE = f"pneumoniamnist is not the official file: {REASSEMBLED}. torch {torch.__version__}."

Row = Mapping[str, Any]


def place(folder: Path, name: str) -> Path:
    """Where the evaluation of a set is."""
    return folder / "evaluation" / name


def rows_of(folder: Path) -> dict[str, list[Row]]:
    """Rows of all cases and classes together, of the sets that are there."""
    found = {}
    for name in PUBLISHED:
        file = place(folder, name) / JSON
        if file.is_file():
            rows = read_json(file, MedformerError)["rows"]
            found[name] = [row for row in rows if not row["class"] and not row["group_by"]]
    return found


def probes_table(rows: Mapping[str, Sequence[Row]]) -> Table:
    """KNN and linear probe with all labels.

    Args:
        rows: those of :func:`rows_of`.
    """
    lines = []
    for name, probe in itertools.product(rows, ("knn", "linear")):
        found = {
            (row["weights"], row["metric"]): row
            for row in rows[name]
            if row["protocol"] == probe and row["budget"] == ALL
        }
        areas = (_with_interval(found[weights, "auc"]) for weights in ("pretrained", "random", "none"))
        accuracy = found["pretrained", "acc"]
        lines.append(
            (name, "kNN" if probe == "knn" else probe, *areas, f"{accuracy['value']:.3f}",
             f"{accuracy['constant']:.3f}")
        )  # fmt: skip
    return Table(
        title="With all labels: frozen features",
        command=COMMAND,
        columns=("set", "probe, all labels", "released network", "random network", "raw pixels",
                 "ACC of the released network", "ACC of a constant"),
        rows=tuple(lines),
        remarks="Test AUC with its 95 % interval over test images; probes as `medformer evaluate` makes them, seed 0. "
        f"{_NOTE}",
    )  # fmt: skip


def few_table(rows: Mapping[str, Sequence[Row]]) -> Table:
    """Frozen arms with few labels, of the sets and of their mean where all are there."""
    areas = few_areas(rows)
    lines = []
    for (name, budget), arms in areas.items():
        released = arms[PRETRAINED]
        means = (f"{np.mean(arms[arm]):.3f}" for arm in (RAW, RANDOM, PRETRAINED))
        differences = (interval(np.subtract(released, arms[arm]).tolist()) for arm in (RAW, RANDOM))
        lines.append((name, budget, *means, *differences))
    return Table(
        title="With few labels",
        command=COMMAND,
        columns=("set", "labels", "raw pixels, linear", "random network, frozen", "released network, frozen",
                 "less raw pixels", "less random network"),
        rows=tuple(lines),
        remarks="Test AUC of linear heads, the same draws for all, mean of the draws; of a network embedding, mean and "
        "spread of the tokens, their covariance in tangent space and raw pixels vote, which is the default of the "
        "product. Differences with their 95 % t interval over draws. 1 % and 10 % are of each class, at least one "
        f"image of it. {_NOTE}",
    )  # fmt: skip


def few_areas(rows: Mapping[str, Sequence[Row]]) -> dict[tuple[str, str], dict[str, list[float]]]:
    """Test AUC by set, budget and arm, one for each seed in their order; the mean of the sets where all are there."""
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    for name, budget in itertools.product(rows, BUDGETS):
        chosen = [
            row
            for row in rows[name]
            if row["protocol"] == "few_label" and row["budget"] == budget and row["metric"] == "auc"
        ]
        for row in sorted(chosen, key=lambda row: int(row["seed"])):
            found.setdefault((name, budget), {}).setdefault(row["arm"], []).append(float(row["value"]))
    if len(rows) == len(PUBLISHED):
        for budget in BUDGETS:
            found[MEAN, budget] = {
                arm: np.mean([found[name, budget][arm] for name in rows], axis=0).tolist()
                for arm in (RAW, RANDOM, PRETRAINED)
            }
    return found


def distance_table(rows: Mapping[str, Sequence[Row]]) -> Table:
    """A tenth of the labels beside what was published with all."""
    areas = few_areas(rows)
    published = {name: each.auc for name, each in PUBLISHED.items()}
    published[MEAN] = float(np.mean(list(published.values())))
    lines = [
        (name, f"{value:.3f}", f"{mine:.3f}", f"{mine - value:+.3f}", f"{mine - GOAL:+.3f}" if name == MEAN else "")
        for name, value in published.items()
        if (name, "10 %") in areas
        for mine in [float(np.mean(areas[name, "10 %"][PRETRAINED]))]
    ]
    return Table(
        title="The distance to the goal",
        command=COMMAND,
        columns=("set", "published ResNet-18, all labels", "released network, frozen, 10 %", "difference",
                 f"less the goal of {GOAL:.3f}"),
        rows=tuple(lines),
        remarks="Test AUC. Published: 28 pixels, of volumes 'ResNet-18 + 3D' (medmnist.com). The goal is the mean of "
        f"these less .02. {_NOTE}",
    )  # fmt: skip


def draws_table(rows: Mapping[str, Sequence[Row]]) -> Table:
    """The hashes of the draws."""
    lines = []
    for name, budget in itertools.product(rows, BUDGETS):
        hashes = {row["seed"]: row for row in rows[name] if row["budget"] == budget}
        given = [str(hashes[seed]["labelled_images"]) for seed in sorted(hashes)]
        lines.append(
            (name, budget, ", ".join(dict.fromkeys(given)),
             ", ".join(hashes[seed]["index_sha256"][:12] for seed in sorted(hashes)))
        )  # fmt: skip
    return Table(
        title="Draws",
        command=COMMAND,
        columns=("set", "labels", "images", "hash of the draws by seed, from 0"),
        rows=tuple(lines),
        remarks="The first twelve digits of SHA-256 over the indices of the labelled images.",
    )


def _with_interval(row: Row) -> str:
    return f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
