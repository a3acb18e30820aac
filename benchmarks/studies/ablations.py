"""What the views policy and the hiding of metadata are worth: each taken away alone.

``python -m benchmarks.studies ablations FOLDER``. medformer_nano is pretrained by SimCLR on three sets of planes, for
as many steps in each arm. All arms of a seed begin with the same weights, see the same images in the same order and
have the same draws of labels; what differs is in the name of the arm. Frozen features are read with 10 and 50 labels
per class on the training images that a draw left: no test split is touched, for nothing is claimed of new images, only
which arm is ahead. Every network is trained and scored once and kept, so a run that was stopped goes on.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.studies.nominal import GROUNDS, MEAN, SIMCLR, Reading, collected, few_label_scores
from benchmarks.studies.paired import interval
from benchmarks.studies.quick import configured, train_on
from benchmarks.studies.runs import VIEWS
from benchmarks.table import Table
from data_shards.support.allocator import keep_freed_memory
from data_shards.support.errors import MedformerError
from data_shards.support.files import read_json, write_json
from finetune.fit.features import summaries
from pretrain.module import PretrainModule, create_backbone
from pretrain.views.policy import under_policy

SEEDS = range(5)
GROUND = GROUNDS[0]
READS: Mapping[str, tuple[Any, str]] = {
    "linear, mean and spread": ("linear", "mean_spread"),
    "linear, embedding": ("linear", "embedding"),
    "kNN, embedding": ("kNN", "embedding"),
}
NATURAL: dict[str, Any] = {
    "crop": {"scale": [0.08, 1.0]},
    "brightness": {"strength": 0.4},
    "contrast": {"strength": 0.4},
    "colour": {"strength": 0.4},
    "blur": {"probability": 0.5},
    "flip": {"vertical": 0.0},
    "policy": None,
}
"""About those of photographs (Chen et al., ICML 2020, appendix A), without the conversion to grey."""


@dataclass(frozen=True)
class Arm:
    """A pretraining that differs from the first one in one thing.

    Attributes:
        name: what differs.
        views: of the pretraining.
        model: keys of the section ``model`` beside the name.
    """

    name: str
    views: Mapping[str, Any] = field(default_factory=lambda: VIEWS)
    model: Mapping[str, Any] = field(default_factory=dict)


FULL = Arm("views of the demonstration under the policy, metadata hidden one time in ten")
ARMS = (
    FULL,
    Arm("metadata never hidden", model={"metadata_dropout": 0.0}),
    Arm("metadata always hidden", model={"metadata_dropout": 1.0}),
    Arm("views of the demonstration, no policy", views={**VIEWS, "policy": None}),
    Arm("default views under the policy", views={}),
    Arm("default views, no policy", views={"policy": None}),
    Arm("views of photographs, no policy", views=NATURAL),
    Arm("crops alone", views={"crop": VIEWS["crop"], **dict.fromkeys(
        ("flip", "rotation", "brightness", "contrast", "gamma", "colour", "blur", "noise"))}),
)  # fmt: skip


def run(folder: Path) -> Table:
    """Train and score what is missing, and put it together."""
    keep_freed_memory()
    for seed, arm in itertools.product(SEEDS, ARMS):
        score(folder, arm, seed)
    return table(folder)


def place(folder: Path, arm: Arm, seed: int) -> Path:
    """Where the scores of a network are kept."""
    return folder / "scores" / f"{arm.name.replace(' ', '-').replace(',', '')}-{seed}.json"


def score(folder: Path, arm: Arm, seed: int) -> None:
    """Pretrain a network and read it on every set, unless that was done."""
    kept = place(folder, arm, seed)
    if kept.is_file():
        return
    splits = GROUND.splits(folder)
    config = configured({
        "seed": seed, "views": dict(arm.views), "objectives": SIMCLR,
        "model": {"name": "medformer_nano", "kwargs": {"img_size": list(GROUND.size)}, **arm.model},
        "optimizer": {"name": "adamw", "lr": GROUND.rate, "weight_decay": 0.05},
    })  # fmt: skip
    torch.manual_seed(seed)
    started_s = time.process_time()
    module = PretrainModule(create_backbone(config.model), config.objectives)
    seen = [each["train"] for each in splits.values()]
    ruled = [
        under_policy(config.views, [cases.organ.name], [cases.modality.name], np.asarray(cases.images).shape[1:]).views
        for cases in seen
    ]
    train_on([module], config, seen, GROUND.rows, GROUND.steps, augmented=ruled)
    record: dict[str, Any] = {"cpu_s": time.process_time() - started_s, "sets": {}}
    for name, each in splits.items():
        found = summaries(module.backbone, each["train"])
        readings = {name: Reading(probe, {"train": found.read(read)}) for name, (probe, read) in READS.items()}
        record["sets"][name] = few_label_scores(each, readings)
    kept.parent.mkdir(parents=True, exist_ok=True)
    write_json(kept, record)
    print(f"{arm.name} {seed} {json.dumps(record)}", flush=True)


def table(folder: Path) -> Table:
    """Scores of the arms of which all seeds are there, and their distance from the first."""
    found = {}
    for arm in ARMS:
        paths = [place(folder, arm, seed) for seed in SEEDS]
        if all(path.is_file() for path in paths):
            found[arm.name] = collected([read_json(path, MedformerError)["sets"] for path in paths], "left")
    rows = []
    for read in READS:
        for pretraining, scores in found.items():
            cells = []
            for name in (*GROUND.sets, MEAN):
                values = scores[name, read]
                if pretraining == FULL.name or FULL.name not in found:
                    cells.append(f"{sum(values) / len(values):.3f}")
                else:
                    cells.append(interval([a - b for a, b in zip(values, found[FULL.name][name, read], strict=True)]))
            rows.append((read, pretraining, *cells))
    return Table(
        title="Views policy and hidden metadata, each taken away",
        command="python -m benchmarks.studies ablations FOLDER",
        columns=("read", "pretraining", *GROUND.sets, "mean of the three"),
        rows=tuple(rows),
        remarks=f"First arm: AUC on the training images that the draws of labels left, mean over 10 and 50 labels per "
        f"class, three draws each, and {len(SEEDS)} seeds; other arms: paired difference from it with its 95 % t "
        f"interval over seeds. medformer_nano, SimCLR, {GROUND.steps} steps of {GROUND.rows} images; pneumoniamnist is "
        f"reassembled, not the official file. torch {torch.__version__}.",
    )
