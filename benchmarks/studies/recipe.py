"""The reference recipe of MedMNIST on the real sets, beside the figures that its authors published.

``python -m benchmarks.studies recipe FOLDER [epochs=100] [seeds=3] [sets=4]``. A ResNet-18 for small images is trained
from random weights on the training split; the epoch is chosen by AUC on the validation split; the test split is
predicted by the network of that epoch, and by that of the last. Both were settled before: of the two public versions of
the authors' script one keeps the best epoch, the other a reference to the network, which is the last one. Every fit is
kept in a file of its own, and one that was stopped goes on from its last state, written every five epochs; what is not
there yet is left out of the table. Sets are in the order of their cost, of which an estimate is printed first.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.studies.runs import DATA, REASSEMBLED
from benchmarks.table import Table
from data_shards.support.progress import clock
from finetune.cases import Cases
from finetune.readers.archive import read_archive
from finetune.reference.baseline import reference_network
from finetune.reference.fit import fit_reference
from finetune.reference.recipe import ReferenceRecipe, axes_of, recipe_for
from finetune.scores.bootstrap import interval
from finetune.scores.metrics import accuracy, auc
from finetune.subsets import indices_sha256

COMMAND = "python -m benchmarks.studies recipe FOLDER"
WITHIN = 0.03
"""How far the mean AUC may lie from the published one."""
_TIMED = 64


@dataclass(frozen=True)
class Published:
    """AUC and ACC of ResNet-18 on images of 28 pixels or voxels, of volumes by convolutions of three axes."""

    auc: float
    acc: float


PUBLISHED: Mapping[str, Published] = {
    "breastmnist": Published(0.901, 0.863),
    "retinamnist": Published(0.717, 0.524),
    "pneumoniamnist": Published(0.944, 0.854),
    "adrenalmnist3d": Published(0.827, 0.721),
}
"""From the table at medmnist.com; in the order of what a fit costs."""


def run(folder: Path, epochs: float = 100, seeds: float = 3, sets: float = 4) -> Table:
    """Fit what is missing, and put it together."""
    names = list(PUBLISHED)[: int(sets)]
    missing = {
        name: [seed for seed in range(int(seeds)) if not place(folder, name, int(epochs), seed).is_file()]
        for name in names
    }
    splits = {name: read(name) for name in names if missing[name]}
    for name in splits:
        each_s = seconds(splits[name], int(epochs))
        todo = f"{len(missing[name])} fits of {clock(each_s)} of CPU time each by an estimate"
        print(f"{name}: {todo}, {clock(each_s * len(missing[name]))} together", flush=True)
    for name in splits:
        for seed in missing[name]:
            fit(folder, name, splits[name], int(epochs), seed)
            print(*(_row(folder, name, int(epochs), int(seeds)) or ()), sep=" | ", flush=True)
    return table(folder, names, int(epochs), int(seeds))


def read(name: str) -> dict[str, Cases]:
    """The splits of a set."""
    derived = DATA / "derived" / f"{name}_reassembled.npz"
    return read_archive(derived if derived.is_file() else DATA / "medmnist" / f"{name}.npz")


def place(folder: Path, name: str, epochs: int, seed: int) -> Path:
    """Where a fit is kept."""
    return folder / "fits" / name / f"epochs-{epochs}-seed-{seed}.npz"


def fit(folder: Path, name: str, splits: Mapping[str, Cases], epochs: int, seed: int) -> None:
    """One fit, unless it is there."""
    kept = place(folder, name, epochs, seed)
    if kept.is_file():
        return
    train, val, test = (splits[split].shared() for split in ("train", "val", "test"))
    recipe = recipe_for(name, axes_of(train), epochs)
    started_s = time.process_time()

    def say(epoch: int, loss: float, score: float) -> None:
        if epoch % 10 == 0 or epoch == 1:
            spent = clock(time.process_time() - started_s)
            print(f"{name} seed {seed} epoch {epoch}: loss {loss:.4f}, val AUC {score:.4f}, CPU {spent}", flush=True)

    kept.parent.mkdir(parents=True, exist_ok=True)
    going = kept.with_suffix(".safetensors")
    fitted = fit_reference(reference_network(train)(seed), train, val, recipe, seed=seed, say=say, checkpoint=going)
    record = {
        "recipe": vars(recipe),
        "seed": seed,
        "epoch": fitted.epoch,
        "curve": fitted.curve,
        "losses": fitted.losses,
        "index_sha256": indices_sha256(np.arange(len(train))),
        "train_sha256": splits["train"].content_sha256(),
        "test_sha256": splits["test"].content_sha256(),
        "cpu_s": time.process_time() - started_s,
        "torch": torch.__version__,
    }
    with kept.with_suffix(".partial").open("wb") as file:
        np.savez(
            file,
            test=fitted.probabilities(test),
            last=fitted.at_last(test),
            labels=test.known_labels,
            record=json.dumps(record),
        )
    kept.with_suffix(".partial").rename(kept)
    going.unlink(missing_ok=True)


def seconds(splits: Mapping[str, Cases], epochs: int) -> float:
    """What a fit takes by an estimate, in seconds of CPU time: two steps on a few cases, and their prediction."""
    train = splits["train"].shared()
    axes = axes_of(train)
    few = train[np.arange(min(_TIMED if axes == 2 else 8, len(train)))]
    recipe = replace(ReferenceRecipe(epochs=1), batch_size=len(few))
    started_s = time.process_time()
    fitted = fit_reference(reference_network(train)(0), few, None, recipe, seed=0)
    step_s = time.process_time() - started_s
    started_s = time.process_time()
    fitted.probabilities(few)
    told_s = time.process_time() - started_s
    return epochs * (step_s * len(train) + told_s * len(splits["val"])) / len(few)


def table(folder: Path, names: list[str], epochs: int, seeds: int) -> Table:
    """What is there beside what was published."""
    return Table(
        title="The reference recipe beside its published figures",
        command=COMMAND if (epochs, seeds) == (100, 3) else f"{COMMAND} epochs={epochs} seeds={seeds}",
        columns=("set", "fits", "AUC", "published", "difference", f"within {WITHIN}", "AUC of the last epoch", "ACC",
                 "published", "commonest class", "epochs chosen", "CPU time of a fit"),
        rows=tuple(row for name in names if (row := _row(folder, name, epochs, seeds)) is not None),
        remarks="Test AUC and ACC as medmnist.Evaluator computes them: mean of the seeds that are there, lowest and "
        "highest, and the 95 % interval of the mean over test images, which MedMNIST does not tie to subjects. "
        "Published: ResNet-18 at 28 pixels, of volumes 'ResNet-18 + 3D', one figure without interval (medmnist.com). "
        "Commonest class: ACC of saying the commonest class of the training split. pneumoniamnist is not the official "
        f"file: {REASSEMBLED}. Batches hold 128 planes or 32 volumes. torch {torch.__version__}, one thread.",
    )  # fmt: skip


def _row(folder: Path, name: str, epochs: int, seeds: int) -> tuple[str, ...] | None:
    rows = list(_kept(folder, name, epochs, seeds))
    if not rows:
        return None
    splits = read(name)
    test, published = splits["test"], PUBLISHED[name]
    chosen, last = (np.stack([row[what] for row in rows]) for what in ("test", "last"))
    areas = [float(auc(test.known_labels, each, test.task)) for each in chosen]
    over = interval(auc, test.known_labels, chosen, test.task, seed=0, subjects=test.subjects)
    gap = float(np.mean(areas)) - published.auc
    records = [row["record"] for row in rows]
    commonest = int(np.bincount(splits["train"].known_labels[:, 0]).argmax())
    return (
        name if test.official else f"{name} (reassembled)",
        f"{len(rows)} of {seeds}",
        f"{np.mean(areas):.3f} ({min(areas):.3f} to {max(areas):.3f}) [{over.low:.3f}, {over.high:.3f}]",
        f"{published.auc:.3f}",
        f"{gap:+.3f}",
        "yes" if abs(gap) <= WITHIN else "no",
        f"{np.mean([float(auc(test.known_labels, each, test.task)) for each in last]):.3f}",
        f"{np.mean([float(accuracy(test.known_labels, each, test.task)) for each in chosen]):.3f}",
        f"{published.acc:.3f}",
        f"{np.mean(test.known_labels[:, 0] == commonest):.3f}",
        " ".join(str(record["epoch"]) for record in records),
        clock(float(np.mean([record["cpu_s"] for record in records]))),
    )


def _kept(folder: Path, name: str, epochs: int, seeds: int) -> Iterator[dict[str, Any]]:
    for seed in range(seeds):
        kept = place(folder, name, epochs, seed)
        if kept.is_file():
            with np.load(kept) as each:
                yield {"test": each["test"], "last": each["last"], "record": json.loads(str(each["record"]))}
