"""Our poolings against torchmil's attention on identical bags of vectors: digits, molecules, and Raff and Holt's tests.

``python -m benchmarks.studies bags FOLDER``. All arms are trained by one loop, on the same batches. Digits: is a 9 in
the bag (Ilse et al., ICML 2018, section 4.2; half of the bags positive, sizes normal with mean 10 and standard
deviation 2, pixels as vectors, digits of training bags of the training file and of 1,000 test bags of the test file).
Molecules: Musk 1 and 2, stratified cross-validation in ten parts, with mi-SVM and MI-SVM beside. The tests of Raff and
Holt (NeurIPS 2023) as torchmil draws them: a model that says less than one half by chance has learned from what a bag
lacks. What has been computed is kept in the folder, a file for each fit, and a run that was stopped goes on; what is
not there yet is left out of the table.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from scipy.io import loadmat
from scipy.stats import t
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler
from torchmil.datasets import FalseFrequencyMILDataset, MCStandardMILDataset, SCStandardMILDataset

from benchmarks.studies import mnist
from benchmarks.studies.bag_fits import ARMS, TORCHMIL, Bags, Training, bag_scores, fitted, localisation
from benchmarks.studies.paired import interval
from benchmarks.studies.runs import DATA
from benchmarks.table import Table
from data_shards.support.files import write_json
from finetune.mil.mi_svm import MISVC

DIGIT = 9
SIZES = (50, 100, 200, 300, 500)
SEEDS = range(10)
MUSK_SEEDS = range(5)
TEST_BAGS = 1000
EPOCHS = 40
DIGITS_RATES = (1e-3, 5e-3)
"""Between which each fit chooses by the AUC of a held-out fifth of its training bags."""
STANDARD = {"single concept": SCStandardMILDataset, "two concepts": MCStandardMILDataset,
            "false frequency": FalseFrequencyMILDataset}  # fmt: skip
STANDARD_BAGS = 400
CHANNELS = 16

Result = dict[str, float]


def run(folder: Path) -> Table:
    """Fit what is missing, and put it together."""
    for name, arm, seed, fit in _fits():
        place = folder / "bags" / f"{name}-{arm}-{seed}.json".replace(" ", "-")
        if not place.is_file():
            place.parent.mkdir(parents=True, exist_ok=True)
            write_json(place, {"set": name, "arm": arm, "seed": seed, **fit(arm, seed)})
    return table(folder)


def _fits() -> Iterator[tuple[str, str, int, Callable[[str, int], Result]]]:
    """Set, arm, seed and the fit; the cheap sets first, and of each one seed after the other."""
    for seed, name, arm in itertools.product(SEEDS, STANDARD, ARMS):
        yield name, arm, seed, partial(standard, name)
    for seed, count, arm in itertools.product(SEEDS, SIZES, ARMS):
        yield f"digits {count}", arm, seed, partial(digits, count)
    for name, seed, arm in itertools.product(("musk1", "musk2"), MUSK_SEEDS, (*ARMS, "mi-SVM", "MI-SVM")):
        yield name, arm, seed, partial(musk, name)


def standard(name: str, arm: str, seed: int) -> Result:
    """AUC on training-like and on test bags of one of Raff and Holt's tests."""
    train, alike, test = (_standard_bags(name, train, [seed, part]) for part, train in enumerate((True, True, False)))
    readout = fitted(arm, train, Training(steps=400, batch_size=32), seed)
    return {
        "auc": float(roc_auc_score(test.labels, bag_scores(readout, test))),
        "alike": float(roc_auc_score(alike.labels, bag_scores(readout, alike))),
    }


def _standard_bags(name: str, train: bool, seed: list[int]) -> Bags:
    # They are drawn by torch; the argument seed of torchmil's sets has no effect.
    options: dict[str, Any] = {"B": 8} if name == "single concept" else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
        drawn = STANDARD[name](D=CHANNELS, num_bags=STANDARD_BAGS, train=train, **options)
    each = [drawn[index] for index in range(len(drawn))]
    return Bags([bag["X"].numpy() for bag in each], np.array([int(bag["Y"]) for bag in each]))


def digits(count: int, arm: str, seed: int) -> Result:
    """AUC of bags and, within positive ones, of instances."""
    train = digit_bags("train", count, seed)
    parts = train.take(np.arange(count * 4 // 5)), train.take(np.arange(count * 4 // 5, count))

    def held_out(rate: float) -> float:
        readout = fitted(arm, parts[0], Training(steps=EPOCHS * count // 10, rate=rate), seed)
        return float(roc_auc_score(parts[1].labels, bag_scores(readout, parts[1])))

    rate = max(DIGITS_RATES, key=held_out)
    readout = fitted(arm, train, Training(steps=EPOCHS * count // 8, rate=rate), seed)
    test = digit_bags("t10k", TEST_BAGS, seed)
    return {
        "auc": float(roc_auc_score(test.labels, bag_scores(readout, test))),
        "instances": localisation(readout, test),
    }


def digit_bags(split: Literal["train", "t10k"], count: int, seed: int) -> Bags:
    """Bags of digits, every second positive: at least one 9 is in it, and none in the others."""
    pixels, digit_N = mnist.digits(split)
    generator = np.random.default_rng([seed, count, split == "train"])
    others = np.flatnonzero(digit_N != DIGIT)
    vectors, truths = [], []
    for label in np.arange(count) % 2:
        size = max(1, int(generator.normal(10, 2)))
        rows = generator.integers(len(digit_N), size=size) if label else generator.choice(others, size)
        while label and not (digit_N[rows] == DIGIT).any():
            rows = generator.integers(len(digit_N), size=size)
        vectors.append(pixels[rows].astype(np.float32) / 255)
        truths.append((digit_N[rows] == DIGIT).astype(int))
    return Bags(vectors, np.arange(count) % 2, truths)


def musk(name: str, arm: str, seed: int) -> Result:
    """AUC and accuracy of what each bag got from a fit without its tenth."""
    bags = musk_bags(name)
    said = np.zeros(len(bags))
    for rows, held in StratifiedKFold(10, shuffle=True, random_state=seed).split(said, bags.labels):
        scaler = StandardScaler().fit(np.concatenate([bags.vectors[row] for row in rows]))
        scaled = Bags([scaler.transform(each).astype(np.float32) for each in bags.vectors], bags.labels)
        train, test = scaled.take(rows), scaled.take(held)
        if arm in ARMS:
            said[held] = bag_scores(fitted(arm, train, Training(steps=EPOCHS * len(rows) // 8), seed), test)
        else:
            said[held] = MISVC(form=arm[:2]).fit(train.vectors, train.labels).decision_function(test.vectors)
    return {
        "auc": float(roc_auc_score(bags.labels, said)),
        "accuracy": float(np.mean((said > 0) == bags.labels)),
    }


@cache
def musk_bags(name: str) -> Bags:
    """A set of molecules; an instance is a conformation."""
    given = loadmat(DATA / "mil" / f"{name}.mat", simplify_cells=True)["x"]
    names = np.array([str(each).strip() for each in given["ident"]["milbag"]])
    order = list(dict.fromkeys(names))
    label_N = np.asarray(given["nlab"]).ravel() - 1
    rows = [np.flatnonzero(names == each) for each in order]
    vectors = np.asarray(given["data"], np.float32)
    return Bags([vectors[each] for each in rows], np.array([int(label_N[each].max()) for each in rows]))


def table(folder: Path) -> Table:
    """Everything that is there."""
    found: dict[tuple[str, str], dict[int, Result]] = {}
    for place in sorted((folder / "bags").glob("*.json")):
        row = json.loads(place.read_text())
        found.setdefault((row["set"], row["arm"]), {})[row["seed"]] = row
    rows = []
    names = [*STANDARD, *(f"digits {count}" for count in SIZES), "musk1", "musk2"]
    for name in names:
        for arm in (*ARMS, "mi-SVM", "MI-SVM"):
            runs = found.get((name, arm))
            if not runs:
                continue
            theirs = found.get((name, TORCHMIL), {})
            both = sorted(runs.keys() & theirs.keys()) if arm != TORCHMIL else []
            paired = interval([runs[s]["auc"] - theirs[s]["auc"] for s in both]) if len(both) > 1 else ""
            beside = [_mean(runs, what) for what in ("alike", "instances", "accuracy")]
            rows.append((name, arm, str(len(runs)), _mean(runs, "auc"), paired, *beside))
    return Table(
        title="Poolings of bags of vectors, beside torchmil",
        command="python -m benchmarks.studies bags FOLDER",
        columns=("bags", "pooling", "seeds", "AUC", "less torchmil", "AUC as in training", "instance AUC", "accuracy"),
        rows=tuple(rows),
        remarks="Mean over seeds and its 95 % t interval; differences are paired by seed. AUC of the first three sets "
        "is on bags where what negative bags had in training stands in positive ones (or the frequency is reversed); "
        "beside it, on new bags drawn as those of training. Digits: each fit chose its rate on a held-out "
        "fifth of its own training bags. Musk: held out by cross-validation in ten parts; the "
        "defaults are used, nothing was chosen on it, and no further test set exists.",
    )


def _mean(runs: dict[int, Result], what: str) -> str:
    values = np.array([each[what] for each in runs.values() if what in each])
    if len(values) < 2:
        return "" if not len(values) else f"{values[0]:.3f}"
    half = t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    return f"{values.mean():.3f} ± {half:.3f}"
