"""Is a network better for having seen brains fused of several? The arms of BrainFuse, each with the same steps.

``python -m benchmarks.studies brainfuse FOLDER``. The claim of the source slides is an order: fused by the generator,
above fused by the mean of the pixels (Raw), above Barlow Twins alone (BT), above no pretraining (NT); and more with the
consistency (CR; CRr relative to how far the means of the parents lie apart). Generator, networks and labels are of the
training subjects; what was tried beforehand was tried on the validation subjects, and each fit predicts the test
subjects once. Every fit is kept; seeds come one after the other, so that a table of fewer seeds is there early.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as Picture

from benchmarks.studies.brains import SPLITS, Brains, drawn, generator_of, real
from benchmarks.studies.fusing import ARMS, CONSISTENCY, MIXUP, PARENTS, ROWS, STEPS, Arm, embedded, fresh, pretrained
from benchmarks.table import Table
from data_shards.vocabulary import Task
from finetune.cases import Cases
from finetune.classifier.estimator import FewLabelClassifier
from finetune.scores.bootstrap import interval, paired_difference
from finetune.scores.metrics import Score, aligned, auc, replicates
from finetune.splits import selection_folds
from finetune.study.probes import linear_probe
from finetune.subsets import Budget, draw
from pretrain.backbone import Medformer, normalise
from pretrain.brainfuse.bundle import load_generator
from pretrain.brainfuse.fusion import fused, mean_fused

SEEDS = range(5)
BUDGETS = (10, 50)
READS = ("frozen, 10", "frozen, 50", "two stages, 10")
"""How the network is used, and how many labels there are per class."""
PAIRS = (
    ("BT", "NT"), ("BT + Raw", "BT"), ("BT + Fuse", "BT + Raw"), ("BT + Fuse", "BT"), ("BT + Fuse", "BT + mixup"),
    ("BT + Raw + CR", "BT + Raw"), ("BT + Fuse + CR", "BT + Fuse"), ("BT + Fuse + CR", "BT + Raw + CR"),
    ("BT + CR alone", "BT"), ("BT + Raw + CRr", "BT + Raw"), ("BT + Fuse + CRr", "BT + Fuse"),
    ("BT + Fuse + CRr", "BT + Raw + CRr"), ("BT + Fuse + CRr", "BT"), ("BT + CRr alone", "BT"),
)  # fmt: skip


def run(folder: Path) -> list[Table]:
    """Fit what is missing, and put it together."""
    sets = [real(folder), drawn(folder)]
    for seed, brains in itertools.product(SEEDS, sets):
        bundle = generator_of(folder, brains)
        if not (image := folder / f"fused-{brains.name}.png").is_file():
            picture(image, brains, bundle)
        for arm in ARMS:
            fit(folder, brains, arm, seed, bundle)
    return tables(folder, sets)


def place(folder: Path, brains: Brains, arm: Arm, seed: int) -> Path:
    """Where a fit is kept."""
    return folder / brains.name / "fits" / f"{arm.name.replace(' ', '')}-{seed}.npz"


def fit(folder: Path, brains: Brains, arm: Arm, seed: int, generator: Path) -> None:
    """Pretrain one arm and probe it, unless it is there."""
    kept = place(folder, brains, arm, seed)
    if kept.is_file():
        return
    kept.parent.mkdir(parents=True, exist_ok=True)
    started_s = time.process_time()
    backbone = fresh(seed)
    if arm.images is not None:
        backbone = pretrained(brains, arm, seed, generator, partial(print, flush=True))
        torch.save(backbone.state_dict(), kept.with_suffix(".pt"))
    trained_s = time.process_time() - started_s
    said, record = probed(brains, backbone, seed)
    record |= {
        "pretraining_cpu_s": trained_s,
        "probes_cpu_s": time.process_time() - started_s - trained_s,
        "subjects_sha256": {split: brains.parts[split].sha256 for split in SPLITS},
        "constants": {
            "steps": STEPS,
            "rows": ROWS,
            "parents": PARENTS,
            "consistency": CONSISTENCY.get(str(arm.consistent), 0.0),
        },
    }
    with kept.with_suffix(".partial").open("wb") as file:
        np.savez(file, record=json.dumps(record), **said)
    kept.with_suffix(".partial").rename(kept)


def probed(brains: Brains, backbone: Medformer, seed: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Probabilities for the subjects of val and test by each way to use the network, and what was drawn.

    The position of a slice is told from its embedding, the number of the whole from the mean of those of its slices.
    """
    vectors = {split: embedded(backbone, brains.parts[split].volumes) for split in SPLITS}
    said, record = {}, {}
    cut = {split: brains.slices(split) for split in SPLITS}
    position = {split: cases for split, (cases, _) in cut.items()}
    read = {split: vectors[split].reshape(-1, vectors[split].shape[-1])[place] for split, (_, place) in cut.items()}
    whole = {split: brains.wholes(split) for split in SPLITS}
    mean = {split: vectors[split].mean(axis=1) for split in SPLITS}
    for task, cases, features in (("position", position, read), ("whole", whole, mean)):
        for budget in BUDGETS:
            subset = draw(cases["train"], Budget(per_class=budget), seed)
            record[f"{task}_{budget}_index_sha256"] = subset.indices_sha256
            for split, probabilities in _linear(cases["train"], features, subset.positions, seed).items():
                said[f"{task}/frozen, {budget}/{split}"] = probabilities
    few = draw(position["train"], Budget(per_class=BUDGETS[0]), seed)
    # From a new head the embeddings of some arms, which lie close together, get nowhere in so many steps.
    classifier = FewLabelClassifier(
        backbone, seed=seed, strategy="two_stage", max_steps=100, learning_rate=1e-3, calibrate=False
    )
    classifier.fit(position["train"][few.positions], index_sha256=few.indices_sha256)
    for split in ("val", "test"):
        said[f"position/two stages, 10/{split}"] = classifier.predict_proba(position[split])
    return said, record


def _linear(train: Cases, features: dict[str, np.ndarray], rows: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Probabilities of the splits that are told; fitted to rows of the training split, the strength chosen in them."""
    given, told = train[rows], ("val", "test")
    folds = selection_folds(given.strata, seed, given.subjects)
    asked = np.concatenate([features[split] for split in told])
    made = linear_probe(features["train"][rows], given.known_labels, asked, train.target, folds=folds)
    cut = np.split(made.probabilities, [len(features["val"])])
    return dict(zip(told, cut, strict=True))


def top(count: int) -> Score:
    """The share of cases whose class is among the ``count`` most probable, as a score of the bootstrap."""

    def score(labels: np.ndarray, scores: np.ndarray, task: Task, counts: np.ndarray | None = None) -> np.ndarray:
        labels_NL, scores_NK = aligned(labels, scores, task)
        counts_RN, scalar = replicates(counts, len(labels_NL))
        best_NK = np.argsort(-scores_NK, axis=1, kind="stable")[:, :count]
        hit_N = (best_NK == labels_NL).any(axis=1).astype(np.float64)
        share_R: np.ndarray = counts_RN @ hit_N / counts_RN.sum(axis=1)
        return share_R[0] if scalar else share_R

    return score


SCORES: dict[str, tuple[str, Callable[..., Any], Task]] = {
    "top-1": ("position", top(1), Task.multiclass),
    "top-3": ("position", top(3), Task.multiclass),
    "top-5": ("position", top(5), Task.multiclass),
    "AUC": ("whole", auc, Task.binary),
}


def found(folder: Path, brains: Brains, arm: Arm, split: str = "test") -> dict[int, dict[str, np.ndarray]]:
    """What was kept of an arm by seed: probabilities by task and read."""
    kept: dict[int, dict[str, np.ndarray]] = {}
    for seed in SEEDS:
        path = place(folder, brains, arm, seed)
        if path.is_file():
            with np.load(path) as each:
                kept[seed] = {name.removesuffix(f"/{split}"): each[name] for name in each if name.endswith(split)}
    return kept


def tables(folder: Path, sets: Sequence[Brains], split: str = "test") -> list[Table]:
    """Scores and differences, of what is there."""
    arms = {arm.name: arm for arm in ARMS}
    rows, differences = [], []
    for brains in sets:
        truth = {"position": brains.slices(split)[0], "whole": brains.wholes(split)}
        kept = {name: found(folder, brains, arm, split) for name, arm in arms.items()}
        for read in READS:
            for name, seeds in kept.items():
                cells = [_cell(truth, list(seeds.values()), read, score) for score in SCORES]
                if any(cell != "-" for cell in cells):
                    rows.append((brains.name, read, name, str(len(seeds)), *cells))
            for one, other in PAIRS:
                both = sorted(kept[one].keys() & kept[other].keys())
                pair = [[kept[name][seed] for seed in both] for name in (one, other)]
                cells = [_difference(truth, *pair, read, score) for score in SCORES]
                if any(cell != "-" for cell in cells):
                    differences.append((brains.name, read, f"{one} less {other}", str(len(both)), *cells))
    hashes = "; ".join(
        f"{brains.name}: " + ", ".join(
            f"{each} {len(brains.parts[each].subjects)} subjects ({brains.parts[each].sha256[:12]})" for each in SPLITS
        )
        for brains in sets
    )  # fmt: skip
    of_whole = "; ".join(f"{brains.name}: {brains.whole}" for brains in sets)
    command = "python -m benchmarks.studies brainfuse FOLDER"
    return [
        Table(
            title="The arms of BrainFuse",
            command=command,
            columns=("set", "network, labels per class", "arm", "seeds", *SCORES),
            rows=tuple(rows),
            remarks=f"On the {split} subjects, mean over seeds (of weights, draws and labels); 95 % intervals over "
            f"subjects. Top-1, 3, 5: in which of ten parts a slice lies, chance 10, 30 and 50 %; AUC: {of_whole}. "
            "Frozen: a linear model of embeddings (scikit-learn); two stages: from there the whole network, 100 steps. "
            f"medformer_nano of 64 channels and 2 layers; {STEPS} steps of {ROWS} slices of the first term and {ROWS} "
            f"of the second in every arm, {PARENTS} parents, CR (squared distance) of weight "
            f"{CONSISTENCY['squared']:g}, CRr (relative distance) of weight {CONSISTENCY['relative']:g}, mixup with "
            f"Beta({MIXUP}, {MIXUP}). Splits by subject (SHA-256 of their names): {hashes}. torch {torch.__version__}.",
        ),
        Table(
            title="The arms of BrainFuse: differences",
            command=command,
            columns=("set", "network, labels per class", "difference", "seeds", *SCORES),
            rows=tuple(differences),
            remarks="Paired over the same subjects and seeds, with 95 % intervals over subjects.",
        ),
    ]


def _cell(truth: dict[str, Cases], seeds: list[dict[str, np.ndarray]], read: str, name: str) -> str:
    task, score, kind = SCORES[name]
    if not seeds or any(f"{task}/{read}" not in each for each in seeds):
        return "-"
    stack = np.stack([each[f"{task}/{read}"] for each in seeds])
    cases = truth[task]
    over = interval(score, cases.known_labels, stack, kind, seed=0, subjects=cases.subjects)
    return f"{over.estimate:.3f} [{over.low:.3f}, {over.high:.3f}]"


def _difference(
    truth: dict[str, Cases], one: list[dict[str, np.ndarray]], other: list[dict[str, np.ndarray]], read: str, name: str
) -> str:
    task, score, kind = SCORES[name]
    if not one or f"{task}/{read}" not in one[0]:
        return "-"
    stacks = [np.stack([each[f"{task}/{read}"] for each in seeds]) for seeds in (one, other)]
    cases = truth[task]
    over = paired_difference(score, cases.known_labels, *stacks, kind, seed=0, subjects=cases.subjects)
    return f"{over.estimate:+.3f} [{over.low:+.3f}, {over.high:+.3f}]"


@torch.no_grad()
def picture(path: Path, brains: Brains, bundle: Path) -> None:
    """Fused brains to look at: two parents, their mean, what the generator makes; then the same of eight parents."""
    generator = load_generator(bundle)
    volumes = normalise(torch.from_numpy(brains.parts["train"].volumes[:8]))
    depth = volumes.shape[2]
    lines = []
    for height in np.linspace(0.25 * depth, 0.75 * depth, 6).astype(int):
        parents = volumes[:, :, height][:, None]
        shown = [parents[0], parents[1], mean_fused(parents[:2]), fused(generator, parents[:2])]
        shown += [mean_fused(parents), fused(generator, parents)]
        lines.append(torch.cat([each[0, 0] for each in shown], dim=1))
    pixels = ((torch.cat(lines).clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).numpy()
    height, width = pixels.shape
    Picture.fromarray(pixels).resize((4 * width, 4 * height), Picture.Resampling.NEAREST).save(path)
