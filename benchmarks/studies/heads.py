"""Heads and unlabelled images with few labels, on real sets: second-order and multiple-instance pooling.

``python -m benchmarks.studies heads FOLDER``; with the folder of ``strategies`` its network and its fits of the arms in
common are found. Each head is compared, on the same frozen network, draws and folds, with the linear head on the
embedding, on the mean of the tokens, and on the tangent space of their covariances. Volumes are read whole, as bags of
slices, and as bags of blocks of which masks tell what they show. A second table asks how much each loses from all
labels to a tenth of them; a third what unlabelled images give at 10 labels per class.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.studies.cut import Truth, blocks, shown_in_slices
from benchmarks.studies.draws import NETWORK, SEEDS, Splits, fit, found, network, real_sets, stacked
from benchmarks.studies.runs import DATA
from benchmarks.table import Table
from data_shards.prepare.document import Intensity, Preparation
from data_shards.vocabulary import Modality, Organ
from finetune.cases import Cases
from finetune.classifier.unlabelled import TASKS
from finetune.readers import read_cases
from finetune.scores.bootstrap import paired_difference
from finetune.scores.metrics import auc
from finetune.slices import Slices, sliced
from finetune.study.arms import Arm

BUDGETS = ("10", "50", "all")
OPPONENTS = ("embedding", "mean", "tangent")
_LINEAR: Mapping[str, dict[str, Any]] = {
    "embedding": {"head_options": {"reads": "embedding"}},
    "mean": {"head_options": {"reads": "mean"}},
    "tangent": {"head_options": {"reads": "tangent"}},
}
_SECOND_ORDER: Mapping[str, dict[str, Any]] = {
    "spd": {"head": "spd"},
    "spd, root": {"head": "spd", "head_options": {"map": "sqrt"}},
}
_ATTENTION = {"attention": {"head": "attention"}}
POOLINGS = ("attention", "max", "max_min", "log_sum_exp", "top_bottom")
_UNLABELLED: Mapping[str, dict[str, Any]] = {
    "pseudo-labels": {"stepper": "pseudo_labels"},
    "mean teacher": {"stepper": "mean_teacher"},
    "mixmatch": {"stepper": "mixmatch"},
    "two stages, mixmatch": {"stepper": "mixmatch", "strategy": "two_stage"},
    "two stages, hybrid": {"stepper": "hybrid", "strategy": "two_stage"},
}
_SCHEDULE = {"max_steps": 100, "learning_rate": 1e-3, "calibrate": False}
AXES = {"adrenalmnist3d": (0, 2), "hippocampus": (1, 2)}
"""Across which axis volumes are sliced, and every how many-th slice is taken."""


def arms(*, bags: bool) -> list[Arm]:
    """Those of frozen networks; instances are the tokens of one image, or the studies of a bag."""
    instances = "studies" if bags else "tokens"
    mil = {
        f"mil, {pooling}": {"head": "mil", "head_options": {"instances": instances, "pooling": pooling}}
        for pooling in POOLINGS
    }
    each = {**_LINEAR, **_SECOND_ORDER, **({} if bags else _ATTENTION), **mil}
    return [Arm(name, "pretrained", params) for name, params in each.items()]


def unlabelled_arms() -> list[Arm]:
    """With 10 labels per class and the rest of the training images without theirs."""
    found = [Arm("two stages", "pretrained", {"strategy": "two_stage", **_SCHEDULE})]
    for name, params in _UNLABELLED.items():
        schedule = _SCHEDULE if "strategy" in params else {}
        found.append(Arm(name, "pretrained", {**params, **schedule, "head_options": {"reads": "embedding"}}))
    return found


def run(folder: Path) -> list[Table]:
    """Fit what is missing, and put it together."""
    whole, model = dict(real_sets(folder)), network(folder)
    bagged, truths = _bagged(folder, whole)

    def heads(budget: str) -> None:
        for (name, splits), seed in itertools.product({**whole, **bagged}.items(), SEEDS):
            for arm in arms(bags=name in bagged):
                fit(folder, name, splits, budget, seed, arm, model, crossed=False, truth=truths.get(name))

    def drops(budget: str) -> None:
        for (name, splits), seed in itertools.product(whole.items(), SEEDS):
            for arm in arms(bags=False):
                if arm.name in (*OPPONENTS, *_SECOND_ORDER):
                    fit(folder, name, splits, budget, seed, arm, model, crossed=False)

    heads("10")
    guessed = {name: splits for name, splits in whole.items() if splits["train"].task in TASKS}
    for arm, (name, splits), seed in itertools.product(unlabelled_arms(), guessed.items(), SEEDS):
        if "strategy" not in arm.params:
            fit(folder, name, splits, "10", seed, arm, model)
    drops("10 %")
    drops("all")
    heads("50")
    for arm, (name, splits), seed in itertools.product(unlabelled_arms(), guessed.items(), SEEDS):
        fit(folder, name, splits, "10", seed, arm, model)
    heads("all")
    return tables(folder, whole, bagged)


def _bagged(folder: Path, whole: Mapping[str, Splits]) -> tuple[dict[str, Splits], dict[str, Truth]]:
    """Volumes as bags, and which instances of the test cases show the anterior part of the hippocampus."""
    sets: dict[str, Splits] = {}
    truths: dict[str, Truth] = {}
    for name, (axis, every) in AXES.items():
        new = f"{name}, slices"
        sets[new] = {
            split: sliced(replace(cases, name=new), Slices(axis=axis, every=every))
            for split, cases in whole[name].items()
        }
    masks = {split: _anterior(cases) for split, cases in _masks(folder).items()}
    truths["hippocampus, slices"] = shown_in_slices(masks["test"], *AXES["hippocampus"])
    parts = {}
    for split, cases in whole["hippocampus"].items():
        names = [sha256(digest).hexdigest() for digest in cases.digests()]
        parts[split], truth = blocks(cases, masks[split], 16, 8, 8, names, "hippocampus, blocks")
        if split == "test":
            truths["hippocampus, blocks"] = truth
    sets["hippocampus, blocks"] = parts
    return sets, truths


def _masks(folder: Path) -> dict[str, Cases]:
    """The masks, read as the volumes are; with one value per structure, 128 for the anterior part."""
    preparation = Preparation(spacing_mm=1.0, size=(32, 48, 32), intensity=Intensity(window=(1, 2)))
    table = folder / "hippocampus-anterior.csv"
    splits = read_cases(
        DATA / "hippocampus" / "labels", csv=table, prepare=preparation, organ=Organ.brain, modality=Modality.mri
    )
    return {split: splits[split] for split in ("train", "test")}


def _anterior(cases: Cases) -> np.ndarray:
    values = np.stack([next(iter(cases.studies_of(case)[0].images.values())).pixels[0] for case in range(len(cases))])
    assert set(np.unique(values).tolist()) == {0, 128, 255}, "masks must not be interpolated"
    found: np.ndarray = values == 128
    return found


def tables(folder: Path, whole: Mapping[str, Splits], bagged: Mapping[str, Splits]) -> list[Table]:
    """What is there."""
    note = f"{NETWORK}. torch {torch.__version__}."
    command = "python -m benchmarks.studies heads FOLDER"
    rows = []
    for name, splits in {**whole, **bagged}.items():
        for budget, arm in itertools.product(BUDGETS, arms(bags=name in bagged)):
            row = _row(folder, name, splits["test"], budget, arm.name, OPPONENTS)
            if row is not None:
                rows.append((name, budget, arm.name, *row))
    heads = Table(
        title="Heads on a frozen network",
        command=command,
        columns=(
            "set",
            "labels per class",
            "head",
            "within",
            "test",
            "instances",
            *(f"less {each}" for each in OPPONENTS),
        ),
        rows=tuple(rows),
        remarks=f"AUC, mean of {len(SEEDS)} draws of labels (seeds 0 to {SEEDS[-1]}), of five seeds with all labels. "
        "Within: on the training images that the draw left. Test: each head and draw predicted it once; differences "
        "from the linear heads have 95 % intervals over test subjects of the mean difference over draws. Instances: "
        "AUC of slices or blocks with the anterior part against those without within positive cases, of attention by "
        "its weights. hippocampus: is the share of the anterior part above the training subjects' median? Of blocks: "
        f"is it in the bag? {note}",
    )
    drops = Table(
        title="What a tenth of the labels loses",
        command=command,
        columns=("set", "head", "test AUC, all labels", "10 %", "drop", "drop less that of the mean"),
        rows=tuple(_drops(folder, whole)),
        remarks="The last column is the difference of two drops, with a 95 % interval over test subjects; below 0 the "
        f"head loses less. {note}",
    )
    rows = []
    for name, splits in whole.items():
        for arm in unlabelled_arms():
            against = ("embedding", "two stages" if "strategy" in arm.params else "embedding")
            row = _row(folder, name, splits["test"], "10", arm.name, against)
            if row is not None:
                rows.append((name, arm.name, *row[:2], *row[3:]))
    unlabelled = Table(
        title="Unlabelled images at 10 labels per class",
        command=command,
        columns=("set", "arm", "within", "test", "less embedding", "less the same without unlabelled images"),
        rows=tuple(rows),
        remarks="The unlabelled images are all others of the training split; within is the AUC on them, whose labels "
        "were not seen; grades (retinamnist) are not guessed. Frozen arms are linear on the embedding; arms in two "
        "stages run 100 steps at rate 0.001. "
        f"{note}",
    )
    return [heads, drops, unlabelled]


def _row(
    folder: Path, name: str, test: Cases, budget: str, arm: str, opponents: tuple[str, ...]
) -> tuple[str, ...] | None:
    mine = found(folder, name, budget, arm)
    if mine is None:
        return None
    cells = [_mean([each["within"] for each in mine]), _mean([_auc(test, each["test"]) for each in mine])]
    cells.append(_mean([each["located"] for each in mine]))
    for opponent in opponents:
        theirs = None if opponent == arm else found(folder, name, budget, opponent)
        cells.append("-" if theirs is None else _difference(test, stacked(mine), stacked(theirs)))
    return tuple(cells)


def _auc(test: Cases, said: np.ndarray) -> float:
    return float(auc(test.known_labels, said, test.task))


def _mean(values: list[float]) -> str:
    return "-" if np.isnan(values).any() else f"{np.mean(values):.3f}"


def _difference(test: Cases, mine: np.ndarray, theirs: np.ndarray) -> str:
    over = paired_difference(auc, test.known_labels, mine, theirs, test.task, seed=0, subjects=test.subjects)
    return f"{over.estimate:+.3f} [{over.low:+.3f}, {over.high:+.3f}]"


def _drops(folder: Path, whole: Mapping[str, Splits]) -> Iterator[tuple[str, ...]]:
    for name, splits in whole.items():
        test = splits["test"]
        plain = [found(folder, name, budget, "mean") for budget in ("all", "10 %")]
        for arm in (*OPPONENTS, *_SECOND_ORDER):
            mine = [found(folder, name, budget, arm) for budget in ("all", "10 %")]
            if any(each is None for each in (*mine, *plain)):
                continue
            (full, tenth), (full_mean, tenth_mean) = (
                [stacked(each) for each in pair if each] for pair in (mine, plain)
            )
            drop = _difference(test, full, tenth)
            # Two drops as two sets of draws: the mean of all fits that count up less the mean of those that count down.
            both = np.concatenate([full, tenth_mean]), np.concatenate([tenth, full_mean])
            scores = [_mean([_auc(test, said) for said in stack]) for stack in (full, tenth)]
            yield name, arm, *scores, drop, "-" if arm == "mean" else _twice(_difference(test, *both))


def _twice(said: str) -> str:
    """A difference of means over twice as many fits is half of that of the drops."""
    estimate, low, high = (2 * float(part) for part in said.replace("[", "").replace("]", "").replace(",", "").split())
    return f"{estimate:+.3f} [{low:+.3f}, {high:+.3f}]"
