"""Which reads, heads, strategies and ensembles are worth their price with few labels, on five real sets.

``python -m benchmarks.studies strategies FOLDER``. Each arm is fitted to the same draws of labels, five of them at 10
and 50 per class and five seeds with all labels, and compared with the plain one: a linear head on the frozen embedding.
It is scored twice: on the training images that the draw left (with all labels: by cross-validation), where choices are
made, and once on the test split. Arms that train the backbone take most of the time; what has been computed is kept in
the folder, a file for each fit, and a run that was stopped goes on. What is not there yet is left out of the table.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

from benchmarks.studies.paired import interval
from benchmarks.studies.runs import DATA, PLANES, VOLUMES, document, hippocampus, pretrained, shards, source
from benchmarks.table import Table
from data_shards.prepare.document import Intensity, Preparation
from data_shards.support.files import write_atomic
from data_shards.vocabulary import Modality, Organ
from finetune.backbones import fresh_twin
from finetune.cases import Cases
from finetune.classifier.estimate import cross_validated
from finetune.classifier.estimator import FewLabelClassifier
from finetune.readers import read_cases
from finetune.scores.bootstrap import paired_difference
from finetune.scores.metrics import auc
from finetune.study.arms import Arm
from finetune.study.compare import Pretrained, read_or_draw
from finetune.subsets import Budget
from pretrain.bundle import load_bundle

SEEDS = range(5)
BUDGETS: Mapping[str, int | None] = {"10": 10, "50": 50, "all": None}
STEPS = 600
BASELINE = "embedding"
_CHEAP: Mapping[str, dict[str, Any]] = {
    BASELINE: {"head_options": {"reads": "embedding"}},
    "mean": {"head_options": {"reads": "mean"}},
    "mean and spread": {"head_options": {"reads": "mean_spread"}},
    "embedding, mean and spread": {"head_options": {"reads": "embedding_mean_spread"}},
    "vote": {"head_options": {"reads": "vote"}},
    "reads chosen": {},
    "raw pixels": {"head_options": {"reads": "raw"}},
    "unweighted classes": {"class_weight": None},
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
    for name, params in _GRADIENT.items():
        yield Arm(name, "pretrained", {**params, **_SCHEDULE})
    yield Arm("from scratch", "random", {"strategy": "full", **_SCHEDULE, "layer_decay": 1.0})


def run(folder: Path) -> Table:
    """Pretrain what is missing, fit what is missing, and put it together."""
    sets = dict(_sets(folder))
    planes = [shards(folder / "shards", source(name)) for name in PLANES]
    bundle = load_bundle(pretrained(document(folder / "model", planes, 0, STEPS, 128, {})))
    model = Pretrained(bundle.backbone, fresh_twin(bundle))
    # All labels last: their cross-validations take the most time.
    for budgets in (("10", "50"), ("all",)):
        for arm in arms():
            for budget, (name, splits), seed in itertools.product(budgets, sets.items(), SEEDS):
                _fit(folder, name, splits, budget, seed, arm, model)
    return table(folder, sets)


def _sets(folder: Path) -> Iterator[tuple[str, dict[str, Cases]]]:
    """Training (with validation where there is some) and test split of each set."""
    for name in (*PLANES, *VOLUMES):
        splits = read_cases(shards(folder / "shards", source(name)))
        yield name, {split: splits[split] for split in ("train", "test")}
    yield "hippocampus", _hippocampus(folder)


def _hippocampus(folder: Path) -> dict[str, Cases]:
    """Is the anterior part more than the median share of the hippocampus? Told by masks, which the network never sees.

    The median is that of the training subjects; which subjects are held out follows from a hash of the file's name.
    """
    _, held = hippocampus(folder)
    root = DATA / "hippocampus"
    share = {}
    for path in sorted((root / "images").glob("*.nii.gz")):
        mask = np.asarray(nib.load(root / "labels" / path.name).dataobj)
        share[path.name] = float((mask == 1).sum() / (mask > 0).sum())
    names = {path.name for path in held}
    median = float(np.median([value for name, value in share.items() if name not in names]))
    rows = ["file,label,split"]
    for name, value in share.items():
        label = "large" if value > median else "small"
        rows.append(f"{name},{label},{'test' if name in names else 'train'}")
    csv = folder / "hippocampus-anterior.csv"
    write_atomic(csv, "\n".join(rows) + "\n")
    preparation = Preparation(spacing_mm=1.0, size=(32, 48, 32), intensity=Intensity(percentile=(1, 99)))
    splits = read_cases(root / "images", csv=csv, prepare=preparation, organ=Organ.brain, modality=Modality.mri)
    return {split: splits[split] for split in ("train", "test")}


def _place(folder: Path, name: str, budget: str, seed: int, arm: str) -> Path:
    return folder / "fits" / name / budget / f"{arm.replace(' ', '-').replace(',', '')}-{seed}.npz"


def _fit(
    folder: Path, name: str, splits: Mapping[str, Cases], budget: str, seed: int, arm: Arm, model: Pretrained
) -> None:
    """One arm on one draw, unless it is there: score on what the draw left, predictions of the test split."""
    place = _place(folder, name, budget, seed, arm.name)
    if place.is_file():
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    pool, test = splits["train"].shared(), splits["test"].shared()
    count = BUDGETS[budget]
    network = model.backbone if arm.weights == "pretrained" else model.fresh(seed)
    estimator = FewLabelClassifier(network, seed=seed, **arm.params)
    given, index = pool, ""
    if count is not None:
        subset = read_or_draw(splits["train"], Budget(per_class=count), seed, folder / "subsets")
        given, index = pool[subset.positions], subset.indices_sha256
    estimator.fit(given, index_sha256=index)
    if count is None:
        trains = arm.params.get("strategy") is not None
        within = np.nan
        if not trains:
            within = cross_validated(estimator, given, repeats=1, seed=seed).by_repeat[0]
    else:
        rest = pool[np.setdiff1d(np.arange(len(pool)), subset.positions)]
        within = float(auc(rest.known_labels, estimator.predict_proba(rest), rest.task))
    said = estimator.predict_proba(test)
    record = {"index_sha256": index, "labelled": len(given), "chosen": estimator.record_.chosen}
    with place.with_suffix(".partial").open("wb") as file:
        np.savez(file, test=said, within=within, record=json.dumps(record, default=str))
    place.with_suffix(".partial").rename(place)
    for pictures in {id(part): part for part in (pool.pictures, test.pictures)}.values():
        if arm.weights == "random":
            pictures.memo.clear()


def table(folder: Path, sets: Mapping[str, Mapping[str, Cases]]) -> Table:
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
        "interval over test subjects of the mean difference over draws. medformer_nano with a stem of 8 channels, "
        f"SimCLR, {STEPS} steps of 128 training images of {', '.join(PLANES)}; it has seen no volume, and no image of "
        "a test split. Arms that train the backbone: 100 steps, rate 0.001. hippocampus: is the share of the anterior "
        "part above the training subjects' median? pneumoniamnist is not the official file. "
        f"torch {torch.__version__}.",
    )


def _row(folder: Path, name: str, test: Cases, budget: str, arm: str) -> tuple[str, str, str, str] | None:
    mine, plain = ([_read(_place(folder, name, budget, seed, each)) for seed in SEEDS] for each in (arm, BASELINE))
    if any(each is None for each in (*mine, *plain)):
        return None
    within = [each["within"] for each in mine if each is not None]
    base = [each["within"] for each in plain if each is not None]
    differences = [a - b for a, b in zip(within, base, strict=True)]
    gain = "-" if arm == BASELINE or np.isnan(differences).any() else interval(differences)
    stacks = [np.stack([each["test"] for each in found if each is not None]) for found in (mine, plain)]
    labels = test.known_labels
    mean = float(np.mean([auc(labels, said, test.task) for said in stacks[0]]))
    over = paired_difference(auc, labels, stacks[0], stacks[1], test.task, seed=0, subjects=test.subjects)
    on_test = "-" if arm == BASELINE else f"{over.estimate:+.3f} [{over.low:+.3f}, {over.high:+.3f}]"
    written = "-" if np.isnan(within).any() else f"{np.mean(within):.3f}"
    return written, gain, f"{mean:.3f}", on_test


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    with np.load(path) as kept:
        return {"test": kept["test"], "within": float(kept["within"])}
