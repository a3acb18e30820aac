"""Every registered objective, trained for the same CPU time on real sets, beside a random network and raw pixels.

``python -m benchmarks.studies objectives FOLDER``. The time of a step is measured first, as CPU time of the process,
and kept; all seeds of an objective take as many steps as fit into the time. Features are frozen and read by a vote of
neighbours and by a linear model whose strength is chosen on the validation split; each fit predicts the test split
once. Every fit is kept; seeds come one after the other, so that a table of the first is there early.
"""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.studies.fusing import MODEL, fresh
from benchmarks.studies.grounds import GROUNDS, Ground
from benchmarks.studies.quick import configured, train_on
from benchmarks.table import Table
from data_shards.support.errors import MedformerError
from data_shards.support.files import read_json, write_json
from finetune.cases import Cases
from finetune.fit.features import summaries
from finetune.fit.raw import raw_pixels
from finetune.scores.bootstrap import interval, paired_difference
from finetune.scores.metrics import auc
from finetune.study.probes import knn_probe, linear_probe
from pretrain.backbone import Medformer
from pretrain.health import embedding_spread
from pretrain.module import PretrainModule
from pretrain.objectives.base import OBJECTIVES

SEEDS = range(3)
SECONDS = 30.0
"""CPU time of the steps of one training."""
RATE = 0.002
WARM, TIMED = 2, 10
RANDOM, RAW = "random network", "raw pixels"
ARMS: dict[str, dict[str, dict[str, Any]]] = {
    "simclr": {"simclr": {"temperature": 0.2}},
    "byol": {"byol": {}},
    "barlow_twins": {"barlow_twins": {}},
    "swav": {"swav": {}},
    "dino": {"dino": {}},
    "dino + ibot": {"dino": {"ibot": 1.0, "cells": 1}},
    "masked": {"masked": {"cells": 1}},
    "restore": {"restore": {}},
    "rotation": {"rotation": {}},
    "jigsaw": {"jigsaw": {}},
    "brainfuse": {"brainfuse": {}},
}
"""As their defaults are; cells of one token, since the images have few."""
READS = {"kNN": "embedding", "linear": "embedding", "linear, mean and spread": "mean_spread"}


def run(folder: Path) -> Table:
    """Train what is missing, probe it, and put it together."""
    assert {name for arm in ARMS.values() for name in arm} == set(OBJECTIVES), "every registered objective has an arm"
    grounds = [make(folder) for make in GROUNDS]
    for seed, ground, arm in itertools.product(SEEDS, grounds, (RAW, RANDOM, *ARMS)):
        if arm != "brainfuse" or ground.subjects_fit:
            fit(folder, ground, arm, seed)
    return table(folder, grounds)


def place(folder: Path, ground: Ground, arm: str, seed: int) -> Path:
    """Where a fit is kept."""
    return folder / "fits" / ground.name / f"{arm.replace(' ', '')}-{seed}.npz"


def fit(folder: Path, ground: Ground, arm: str, seed: int) -> None:
    """Train an arm and probe it on every set of the ground, unless it is there; raw pixels know no seed."""
    kept = place(folder, ground, arm, seed)
    if kept.is_file() or (arm == RAW and seed):
        return
    kept.parent.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {}
    said: dict[str, np.ndarray] = {}
    if arm == RAW:
        for name, splits in ground.sets.items():
            said |= _probes(
                name, splits, {split: raw_pixels(cases) for split, cases in splits.items()}, ("kNN", "linear")
            )
    else:
        backbone = fresh(seed)
        if arm in ARMS:
            steps = steps_for(folder, ground, arm)
            started_s = time.process_time()
            backbone = trained(ground, arm, seed, steps)
            record |= {"steps": steps, "cpu_s": time.process_time() - started_s}
        for name, splits in ground.sets.items():
            found = {split: summaries(backbone, cases) for split, cases in splits.items()}
            spread = embedding_spread([torch.from_numpy(found["test"].embedding_ND)])
            record[f"{name}/spread"] = [spread["embedding_std"], spread["effective_rank"]]
            for probe, read in READS.items():
                said |= _probes(name, splits, {split: each.read(read) for split, each in found.items()}, (probe,))
    with kept.with_suffix(".partial").open("wb") as file:
        np.savez(file, record=json.dumps(record), **said)
    kept.with_suffix(".partial").rename(kept)
    print(f"{ground.name} {arm} {seed} {record}", flush=True)


def steps_for(folder: Path, ground: Ground, arm: str) -> int:
    """How many steps fit into the time, from a measurement that is kept."""
    path = folder / "steps" / ground.name / f"{arm.replace(' ', '')}.json"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        taken: list[float] = []
        trained(ground, arm, 0, WARM + TIMED, taken)
        step_s = min(taken[WARM:])  # Others on the machine make steps longer, even in CPU time; never shorter.
        write_json(path, {"step_cpu_s": step_s, "steps": max(1, round(SECONDS / step_s)), "cpu_s": SECONDS})
    return int(read_json(path, MedformerError)["steps"])


def trained(ground: Ground, arm: str, seed: int, steps: int, taken: list[float] | None = None) -> Medformer:
    """The network after so many steps.

    Args:
        ground: what is seen.
        arm: one of :data:`ARMS`.
        seed: of weights, draws and views.
        steps: how many.
        taken: receives the CPU time of each step but the last.
    """
    config = configured({
        "seed": seed, "model": MODEL, "views": ground.views, "objectives": ARMS[arm],
        "optimizer": {"name": "adamw", "lr": RATE, "weight_decay": 0.05},
    })  # fmt: skip
    backbone = fresh(seed)
    module = PretrainModule(backbone, config.objectives)
    seen = [splits["train"] for splits in ground.sets.values()]
    train_on([module], config, seen, ground.rows, steps, taken)
    return backbone


def _probes(
    name: str, splits: dict[str, Cases], features: dict[str, np.ndarray], probes: tuple[str, ...]
) -> dict[str, np.ndarray]:
    train, val, target = splits["train"], splits["val"], splits["train"].target
    made = {}
    for probe in probes:
        if probe == "kNN":
            found = knn_probe(features["train"], train.known_labels, features["test"], target)
        else:
            rows, held = np.arange(len(train)), len(train) + np.arange(len(val))
            both = np.concatenate([features["train"], features["val"]])
            labels = np.concatenate([train.known_labels, val.known_labels])
            found = linear_probe(both, labels, features["test"], target, folds=[(rows, held)], refit=rows)
        made[f"{name}/{probe}"] = found.probabilities
    return made


def found(folder: Path, ground: Ground, arm: str) -> dict[int, dict[str, Any]]:
    """What was kept of an arm, by seed."""
    kept = {}
    for seed in SEEDS:
        path = place(folder, ground, arm, seed)
        if path.is_file():
            with np.load(path) as each:
                kept[seed] = {**{name: each[name] for name in each if name != "record"},
                              "record": json.loads(str(each["record"]))}  # fmt: skip
    return kept


def table(folder: Path, grounds: list[Ground]) -> Table:
    """Scores of what is there, and what each has over the random network."""
    rows = []
    for ground in grounds:
        kept = {arm: found(folder, ground, arm) for arm in (RAW, RANDOM, *ARMS)}
        kept[RAW] = dict.fromkeys(kept[RANDOM], kept[RAW].get(0)) if kept[RAW] else {}
        for name, splits in ground.sets.items():
            for arm, seeds in kept.items():
                if seeds:
                    rows.append((name, arm, *_row(name, splits["test"], seeds, kept[RANDOM])))
    rows += _means(rows)
    return Table(
        title="Every objective for the same time",
        command="python -m benchmarks.studies objectives FOLDER",
        columns=("set", "trained by", "seeds", "steps", "CPU s", "spread, rank", *READS,
                 *(f"less random, {probe}" for probe in READS)),
        rows=tuple(rows),
        remarks="Test AUC of frozen features, mean over seeds, and its paired difference from a random network of the "
        "same seeds with a 95 % interval over test images (subjects where they are known). kNN and linear: of the "
        f"embedding. A training takes the steps that fit into {SECONDS:g} s of CPU time by the shortest of {TIMED} "
        "steps; CPU s is what it took, beside other work on the machine. Spread and effective rank are of the "
        "embeddings of the test images. medformer_nano of 64 channels and 2 layers, AdamW at a rate of "
        f"{RATE} for all, objectives as their defaults are. {' '.join(ground.note for ground in grounds)} "
        f"torch {torch.__version__}.",
    )  # fmt: skip


def _means(rows: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """The mean of the scores of each arm that is there for every set."""
    sets = dict.fromkeys(row[0] for row in rows)
    means = []
    for arm in dict.fromkeys(row[1] for row in rows):
        own = [row for row in rows if row[1] == arm]
        if len(own) == len(sets):
            columns = zip(*(row[6 : 6 + len(READS)] for row in own), strict=True)
            scores = [
                "-" if "-" in cells else f"{np.mean([float(cell[:5]) for cell in cells]):.3f}" for cells in columns
            ]
            means.append(("mean of the sets", arm, own[0][2], "-", "-", "-", *scores, *["-"] * len(READS)))
    return means


def _row(
    name: str, test: Cases, seeds: dict[int, dict[str, Any]], random: dict[int, dict[str, Any]]
) -> tuple[str, ...]:
    records = [each["record"] for each in seeds.values()]
    steps = str(records[0].get("steps", "-"))
    cpu = f"{np.mean([each['cpu_s'] for each in records]):.0f}" if "cpu_s" in records[0] else "-"
    spreads = [each.get(f"{name}/spread") for each in records]
    shape = "-" if spreads[0] is None else ", ".join(f"{value:.2f}" for value in np.mean(spreads, axis=0))
    cells, differences = [], []
    for probe in READS:
        key = f"{name}/{probe}"
        if any(key not in each for each in seeds.values()):
            cells.append("-")
            differences.append("-")
            continue
        stack = np.stack([each[key] for each in seeds.values()])
        over = interval(auc, test.known_labels, stack, test.task, seed=0, subjects=test.subjects)
        cells.append(f"{over.estimate:.3f} [{over.low:.3f}, {over.high:.3f}]")
        both = sorted(seeds.keys() & random.keys())
        if seeds is random or not both:
            differences.append("-")
            continue
        pair = [np.stack([each[seed][key] for seed in both]) for each in (seeds, random)]
        less = paired_difference(auc, test.known_labels, *pair, test.task, seed=0, subjects=test.subjects)
        differences.append(f"{less.estimate:+.3f} [{less.low:+.3f}, {less.high:+.3f}]")
    return str(len(seeds)), steps, cpu, shape, *cells, *differences
