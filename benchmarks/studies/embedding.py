"""Why mean and spread of the tokens read better than the embedding, and ways to make an embedding that reads as well.

``python -m benchmarks.studies embedding FOLDER``. medformer_nano is pretrained by SimCLR on planes and on volumes at
their nominal size, with its embedding made in several ways, for as many steps each. Frozen features are read with 10
and 50 labels per class. All arms of a seed begin with the same weights but those that they add, and see the same images
in the same order and the same draws of labels. Arms are compared on the training images that a draw left; the test
split is predicted by the default and by the arm that was chosen there, :data:`CHOSEN`. Every network is trained and
scored once and kept, so a run that was stopped goes on.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from benchmarks.studies.embedding_arms import CHOSEN, LOTS, QUERY, Arm
from benchmarks.studies.embedding_reads import reads_of
from benchmarks.studies.embedding_tables import (
    LOOKED_DRAWS,
    LOOKED_INTO,
    PROBES,
    READS,
    SEEDS,
    arms_table,
    cost_place,
    network_place,
    reads_place,
    reads_table,
    score_place,
    test_table,
)
from benchmarks.studies.nominal import GROUNDS, SIMCLR, Ground, Reading, Splits, few_label_scores, pretrain
from benchmarks.table import Table
from data_shards.support.allocator import keep_freed_memory
from data_shards.support.files import write_json
from finetune.fit.features import summaries
from pretrain.health import embedding_spread
from pretrain.module import PretrainModule

MOST = 1100
"""From so many training images of a set labels are drawn, and the rest of them is predicted; pretraining sees all."""
RANK_OF = 500
"""Images whose features' rank is taken."""


def run(folder: Path) -> list[Table]:
    """Train and score what is missing, and put it together."""
    keep_freed_memory()
    for seed, lot, ground in itertools.product(SEEDS, LOTS, GROUNDS):
        whole = ground.splits(folder)
        train(folder, ground, lot, seed, whole)
        splits = {name: _some(each) for name, each in whole.items()}
        if seed in LOOKED_INTO and QUERY in lot:
            for trained in (False, True):
                look_into(folder, ground, seed, splits, trained=trained)
        for arm in lot:
            score(folder, ground, arm, seed, splits, "left")
            if arm in (QUERY, CHOSEN):
                score(folder, ground, arm, seed, splits, "test")
    return [reads_table(folder), arms_table(folder), test_table(folder)]


def _some(splits: Splits) -> Splits:
    """No more than :data:`MOST` of the training images, drawn once for all seeds, and the test split."""
    train = splits["train"]
    rows = np.sort(np.random.default_rng(0).permutation(len(train))[:MOST])
    return {**splits, "train": train[rows]}


def train(folder: Path, ground: Ground, arms: Sequence[Arm], seed: int, splits: dict[str, Splits]) -> None:
    """Train those arms of a seed that are missing, beside each other."""
    missing = [arm for arm in arms if not network_place(folder, ground, arm, seed).is_file()]
    if not missing:
        return
    modules = [fresh(arm, ground, seed) for arm in missing]
    spent_s = pretrain(ground, modules, seed, ground.steps, splits)
    for arm, module, cpu_s in zip(missing, modules, spent_s, strict=True):
        path = network_place(folder, ground, arm, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(cost_place(folder, ground, arm, seed), {"cpu_s": cpu_s})
        partial = path.with_suffix(".partial")
        save_file({name: tensor.contiguous() for name, tensor in module.state_dict().items()}, partial)
        partial.rename(path)


def fresh(arm: Arm, ground: Ground, seed: int) -> PretrainModule:
    """A new network of an arm, with a projector that is the same for all."""
    backbone = arm.fresh(ground.size, seed)
    torch.manual_seed(seed)
    return PretrainModule(backbone, SIMCLR).eval()


def network(folder: Path, ground: Ground, arm: Arm, seed: int) -> PretrainModule:
    """The trained network of an arm and its projector."""
    module = fresh(arm, ground, seed)
    module.load_state_dict(load_file(network_place(folder, ground, arm, seed)))
    return module


def score(folder: Path, ground: Ground, arm: Arm, seed: int, splits: dict[str, Splits], split: str) -> None:
    """Read a network on every set of the ground, unless that was done."""
    kept = score_place(folder, ground, arm, seed, split)
    if kept.is_file():
        return
    backbone = network(folder, ground, arm, seed).backbone
    record: dict[str, Any] = {"sets": {}, "rank": {}}
    for name, each in splits.items():
        asked = ("train", "test") if split == "test" else ("train",)
        found = {part: summaries(backbone, each[part]) for part in asked}
        readings = {
            reading: Reading(probe, {part: said.read(read) for part, said in found.items()})
            for reading, (probe, read) in READS.items()
        }
        record["sets"][name] = few_label_scores(each, readings)
        record["rank"][name] = {read: rank(found["train"].read(read)) for read in ("embedding", "mean_spread")}
    kept.parent.mkdir(parents=True, exist_ok=True)
    write_json(kept, record)
    print(f"{time.process_time():.0f} s {ground.name} {arm.name} {seed} {split} {json.dumps(record)}", flush=True)


def look_into(folder: Path, ground: Ground, seed: int, splits: dict[str, Splits], *, trained: bool) -> None:
    """Score every read of :data:`~benchmarks.studies.embedding_reads.WHERE` of the default, unless that was done."""
    kept = reads_place(folder, ground, seed, trained=trained)
    if kept.is_file():
        return
    module = network(folder, ground, QUERY, seed) if trained else fresh(QUERY, ground, seed)
    record: dict[str, Any] = {"sets": {}, "rank": {}}
    for name, each in splits.items():
        found = reads_of(module, each["train"])
        readings = {
            f"{probe}, {read}": Reading(probe, {"train": features})
            for read, features in found.items()
            for probe in PROBES
        }
        record["sets"][name] = few_label_scores(each, readings, LOOKED_DRAWS)
        record["rank"][name] = {read: rank(features) for read, features in found.items()}
    kept.parent.mkdir(parents=True, exist_ok=True)
    write_json(kept, record)
    print(f"{time.process_time():.0f} s {ground.name} reads {seed} {trained} {json.dumps(record)}", flush=True)


def rank(features_ND: np.ndarray) -> float:
    """Effective rank of the first features, see :func:`~pretrain.health.embedding_spread`."""
    return embedding_spread([torch.from_numpy(features_ND[:RANK_OF].copy())])["effective_rank"]
