"""What a user would pick instead: networks of timm, and ours, pretrained for the same time by the same objective.

``python -m benchmarks.studies backbones FOLDER [seconds=60]``. Each network is trained by SimCLR on the same images in
the same order of draws, for so many seconds of CPU time; steps are as many as fit, by the shortest of a few that are
measured first. Then it is given to the same draws of 10 and 50 labels per class as every other: frozen under a linear
head, fine-tuned whole, and fine-tuned whole from random weights. Planes: the three sets together; volumes: adrenal
glands. Every fit predicts the test split once and is kept; what is not there yet is left out of the table.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.studies.draws import fit, place, stacked
from benchmarks.studies.grounds import Ground, adrenal, planes
from benchmarks.studies.quick import configured, train_on
from benchmarks.table import Table
from data_shards.support.errors import MedformerError
from data_shards.support.files import read_json, write_json
from finetune.backbones import fresh_twin
from finetune.cases import Cases
from finetune.scores.bootstrap import interval, paired_difference
from finetune.scores.metrics import auc
from finetune.study.arms import Arm, raw_arm
from finetune.study.compare import Pretrained
from pretrain.bundle import load_bundle, save_bundle
from pretrain.config import PretrainConfig
from pretrain.module import PretrainModule, create_backbone

SEEDS = range(3)
BUDGETS = ("10", "50")
SECONDS = 60.0
RATE = 0.002
WARM, TIMED = 2, 8
OURS = "medformer_nano"
OBJECTIVE: dict[str, Any] = {"simclr": {"temperature": 0.2}}
_VIT = {"embed_dim": 128, "depth": 6, "num_heads": 4}
NETWORKS: Mapping[str, Mapping[str, dict[str, Any]]] = {
    "planes": {
        OURS: {"name": OURS},
        "resnet18": {"name": "timm:resnet18"},
        "resnet18, as many weights": {"name": "timm:resnet18", "kwargs": {"channels": [20, 40, 80, 184]}},
        "vit": {"name": "timm:vit_tiny_patch16_224", "kwargs": {"img_size": 28, "patch_size": 4, **_VIT}},
    },
    "adrenal": {
        OURS: {"name": OURS},
        "resnet18_3d": {"name": "resnet18_3d"},
        "vit_tiny_3d": {"name": "vit_tiny_3d", "kwargs": {"img_size": 14, "patch_size": 4, **_VIT}},
    },
}  # fmt: skip
_SCHEDULE = {"strategy": "full", "max_steps": 100, "learning_rate": 1e-3, "calibrate": False}
READINGS = (
    Arm("frozen", "pretrained", {}),
    Arm("full", "pretrained", _SCHEDULE),
    Arm("from scratch", "random", {**_SCHEDULE, "layer_decay": 1.0}),
)
RAW = "raw pixels"


@dataclass(frozen=True)
class Trained:
    """A network of the study, and what its training was.

    Attributes:
        model: the network and its fresh twin.
        weights: number of its parameters.
        steps: that were taken.
        step_s: CPU time of the shortest one that was measured.
    """

    model: Pretrained
    weights: int
    steps: int
    step_s: float


def run(folder: Path, seconds: float = SECONDS) -> Table:
    """Pretrain what is missing, fit what is missing, and put it together."""
    grounds = [planes(folder), adrenal(folder)]
    cheap, dear = READINGS[:1], READINGS[1:]
    for readings, ground, seed in itertools.product((cheap, dear), grounds, SEEDS):
        networks = {name: trained(folder, ground, name, seed, seconds) for name in NETWORKS[ground.name]}
        for budget, (name, splits) in itertools.product(BUDGETS, ground.sets.items()):
            some = next(iter(networks.values())).model
            fit(folder, name, splits, budget, seed, Arm(RAW, "random", raw_arm().params), some)
            for reading, (network, found) in itertools.product(readings, networks.items()):
                arm = Arm(f"{network}, {reading.name}", reading.weights, reading.params)
                fit(folder, name, splits, budget, seed, arm, found.model)
    return table(folder, grounds, seconds)


def trained(folder: Path, ground: Ground, name: str, seed: int, seconds: float) -> Trained:
    """The bundle of a network, pretrained unless it is there."""
    model = NETWORKS[ground.name][name]
    home = folder / "networks" / ground.name
    home.mkdir(parents=True, exist_ok=True)
    bundle = home / f"{name.replace(' ', '-').replace(',', '')}-{seed}"
    timing = home / f"{name.replace(' ', '-').replace(',', '')}.json"
    if not timing.is_file():
        taken: list[float] = []
        _train(ground, model, 0, WARM + TIMED, taken)
        write_json(timing, {"step_cpu_s": min(taken[WARM:]), "seconds": seconds})
    step_s = float(read_json(timing, MedformerError)["step_cpu_s"])
    if not bundle.is_dir():
        steps = max(1, round(seconds / step_s))
        started_s = time.process_time()
        module, config = _train(ground, model, seed, steps)
        record = {"steps": steps, "cpu_s": time.process_time() - started_s, "seconds": seconds}
        save_bundle(bundle, module.backbone, config.model.name, config.model.kwargs, {}, record)
        print(f"{ground.name} {name} {seed} {record}", flush=True)
    loaded = load_bundle(bundle)
    if loaded.metrics["seconds"] != seconds:
        raise MedformerError(
            f"{bundle}: pretrained for {loaded.metrics['seconds']} s, not {seconds}; use another folder"
        )
    weights = sum(each.numel() for each in loaded.backbone.parameters())
    return Trained(Pretrained(loaded.backbone, fresh_twin(loaded)), weights, loaded.metrics["steps"], step_s)


def _train(
    ground: Ground, model: dict[str, Any], seed: int, steps: int, taken: list[float] | None = None
) -> tuple[PretrainModule, PretrainConfig]:
    """So many steps on the sets of the ground; ``taken`` receives the CPU time of each."""
    config = configured({
        "seed": seed, "model": model, "views": ground.views, "objectives": OBJECTIVE,
        "optimizer": {"name": "adamw", "lr": RATE, "weight_decay": 0.05},
    })  # fmt: skip
    torch.manual_seed(seed)
    module = PretrainModule(create_backbone(config.model), config.objectives)
    seen = [splits["train"] for splits in ground.sets.values()]
    train_on([module], config, seen, ground.rows, steps, taken)
    return module, config


def _found(folder: Path, name: str, budget: str, arm: str) -> list[dict[str, Any]] | None:
    """What was kept of an arm, one entry per seed; None unless all are there."""
    kept = [place(folder, name, budget, seed, arm) for seed in SEEDS]
    if not all(path.is_file() for path in kept):
        return None
    rows = []
    for path in kept:
        with np.load(path) as each:
            rows.append({"test": each["test"], "index": json.loads(str(each["record"]))["index_sha256"]})
    return rows


def table(folder: Path, grounds: list[Ground], seconds: float) -> Table:
    """Scores of what is there, and what ours has over each other network in the same reading."""
    rows = [row for ground in grounds for row in _rows(folder, ground, seconds)]
    return Table(
        title="What a user would pick instead, pretrained for the same time",
        command=f"python -m benchmarks.studies backbones FOLDER seconds={seconds:g}",
        columns=("set", "labels per class", "reading", "network", "weights", "steps, ms each", "AUC",
                 f"{OURS} less this", "index"),
        rows=tuple(rows),
        remarks=f"Test AUC, mean of seeds {SEEDS[0]} to {SEEDS[-1]} (of weights, views and the draw of labels), and "
        f"the paired difference of {OURS} from each network, with 95 % intervals over test images (subjects where they "
        "are known). Index: the first digits of the SHA-256 of the draw of each seed, the same for all arms. Every "
        f"network was pretrained by SimCLR, AdamW at a rate of {RATE} for all, for {seconds:g} s of CPU time on one "
        "thread. Frozen: the linear head as it is by default, a vote of embedding, mean and spread and covariances of "
        "the tokens and of raw pixels, the last of which all networks share. Full and from scratch: "
        f"100 steps of 16 at a rate of .001. {' '.join(ground.note for ground in grounds)} torch {torch.__version__}.",
    )  # fmt: skip


def _rows(folder: Path, ground: Ground, seconds: float) -> Iterator[tuple[str, ...]]:
    about = {name: trained(folder, ground, name, SEEDS[0], seconds) for name in NETWORKS[ground.name]}
    for (name, splits), budget in itertools.product(ground.sets.items(), BUDGETS):
        raw = _found(folder, name, budget, RAW)
        for reading in READINGS:
            ours = _found(folder, name, budget, f"{OURS}, {reading.name}")
            for network, found in about.items():
                mine = _found(folder, name, budget, f"{network}, {reading.name}")
                if mine is not None:
                    cost = f"{found.steps}, {1000 * found.step_s:.0f}" if reading.weights == "pretrained" else "-"
                    weights = f"{found.weights / 1e6:.2f} M"
                    yield (name, budget, reading.name, network, weights, cost, *_scores(splits["test"], mine, ours))
        if raw is not None:
            plain = _found(folder, name, budget, f"{OURS}, {READINGS[0].name}")
            yield (name, budget, "linear", RAW, "-", "-", *_scores(splits["test"], raw, plain))


def _scores(test: Cases, mine: list[dict[str, Any]], ours: list[dict[str, Any]] | None) -> tuple[str, str, str]:
    labels, stack = test.known_labels, stacked(mine)
    over = interval(auc, labels, stack, test.task, seed=0, subjects=test.subjects)
    less = "-"
    if ours is not None and ours is not mine and not np.array_equal(stack, stacked(ours)):
        pair = paired_difference(auc, labels, stacked(ours), stack, test.task, seed=0, subjects=test.subjects)
        less = f"{pair.estimate:+.3f} [{pair.low:+.3f}, {pair.high:+.3f}]"
    digits = " ".join(each["index"][:6] for each in mine)
    return f"{over.estimate:.3f} [{over.low:.3f}, {over.high:.3f}]", less, digits
