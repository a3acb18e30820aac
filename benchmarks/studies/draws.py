"""Draws of labels from real sets, arms fitted to each of them and kept, and their differences paired by subject.

Each arm is fitted to the same draws, five of them. It is scored on the training images that the draw left, where
choices are made, and once on the test split. What has been computed is kept in the folder, a file for each fit, so a
run that was stopped goes on; studies that share a folder share what they have in common.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from benchmarks.studies.cut import Truth, located
from benchmarks.studies.runs import DATA, PLANES, VOLUMES, document, hippocampus, pretrained, shards, source
from data_shards.prepare.document import Intensity, Preparation
from data_shards.support.files import write_atomic
from data_shards.vocabulary import Modality, Organ
from finetune.backbones import fresh_twin
from finetune.cases import Cases
from finetune.classifier.estimate import cross_validated
from finetune.classifier.estimator import FewLabelClassifier
from finetune.readers import read_cases
from finetune.scores.metrics import auc
from finetune.study.arms import Arm
from finetune.study.compare import Pretrained, read_or_draw
from finetune.subsets import Budget
from pretrain.bundle import load_bundle

SEEDS = range(5)
BUDGETS: Mapping[str, Budget | None] = {
    "10": Budget(per_class=10), "50": Budget(per_class=50), "10 %": Budget(fraction=0.1), "all": None,
}  # fmt: skip
STEPS = 600
NETWORK = (
    f"medformer_nano with a stem of 8 channels, SimCLR, {STEPS} steps of 128 training images of {', '.join(PLANES)}; "
    "it has seen no volume, and no image of a test split"
)

Splits = Mapping[str, Cases]


def network(folder: Path) -> Pretrained:
    """The network of these studies, pretrained unless it is there."""
    planes = [shards(folder / "shards", source(name)) for name in PLANES]
    bundle = load_bundle(pretrained(document(folder / "model", planes, 0, STEPS, 128, {})))
    return Pretrained(bundle.backbone, fresh_twin(bundle))


def real_sets(folder: Path) -> Iterator[tuple[str, Splits]]:
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


def place(folder: Path, name: str, budget: str, seed: int, arm: str) -> Path:
    """Where a fit is kept."""
    return folder / "fits" / name / budget / f"{arm.replace(' ', '-').replace(',', '')}-{seed}.npz"


def fit(
    folder: Path,
    name: str,
    splits: Splits,
    budget: str,
    seed: int,
    arm: Arm,
    model: Pretrained,
    *,
    crossed: bool = True,
    truth: Truth | None = None,
) -> None:
    """One arm on one draw, unless it is there: score on what the draw left, predictions of the test split.

    Args:
        folder: of the study.
        name: of the set.
        splits: ``train``, of which labels are drawn, and ``test``.
        budget: one of :data:`BUDGETS`.
        seed: of the draw and of the fit.
        arm: an arm whose stepper learns from unlabelled images is given what the draw left, without its labels.
        model: its network.
        crossed: with all labels, whether a frozen arm is scored within them by cross-validation.
        truth: which instances of the test cases show what is looked for; an arm that tells of them is scored on it.
    """
    kept = place(folder, name, budget, seed, arm.name)
    if kept.is_file():
        return
    kept.parent.mkdir(parents=True, exist_ok=True)
    pool, test = splits["train"].shared(), splits["test"].shared()
    allowed = BUDGETS[budget]
    backbone = model.backbone if arm.weights == "pretrained" else model.fresh(seed)
    estimator = FewLabelClassifier(backbone, seed=seed, **arm.params)
    given, index, rest = pool, "", None
    if allowed is not None:
        subset = read_or_draw(splits["train"], allowed, seed, folder / "subsets")
        given, index = pool[subset.positions], subset.indices_sha256
        left = np.setdiff1d(np.arange(len(pool)), subset.positions)
        rest = pool[left] if len(left) else None
    unlabelled = rest if "stepper" in arm.params else None
    estimator.fit(
        given, index_sha256=index, unlabelled=None if unlabelled is None else replace(unlabelled, labels=None)
    )
    within = np.nan
    if rest is not None:
        within = float(auc(rest.known_labels, estimator.predict_proba(rest), rest.task))
    elif crossed and allowed is None and arm.params.get("strategy") is None:
        within = cross_validated(estimator, given, repeats=1, seed=seed).by_repeat[0]
    where = np.nan if truth is None else located(estimator, test, truth)
    record = {"index_sha256": index, "labelled": len(given), "chosen": estimator.record_.chosen}
    said = estimator.predict_proba(test)
    with kept.with_suffix(".partial").open("wb") as file:
        np.savez(file, test=said, within=within, located=where, record=json.dumps(record, default=str))
    kept.with_suffix(".partial").rename(kept)
    for pictures in {id(part): part for part in (pool.pictures, test.pictures)}.values():
        if arm.weights == "random":
            pictures.memo.clear()


def found(folder: Path, name: str, budget: str, arm: str) -> list[dict[str, Any]] | None:
    """What was kept of an arm, one entry per draw; None unless all are there."""
    rows = []
    for seed in SEEDS:
        kept = place(folder, name, budget, seed, arm)
        if not kept.is_file():
            return None
        with np.load(kept) as each:
            where = float(each["located"]) if "located" in each else np.nan
            rows.append({"test": each["test"], "within": float(each["within"]), "located": where})
    return rows


def stacked(rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Predictions of the test split by all draws, ``(S, N, C)``."""
    return np.stack([row["test"] for row in rows])
