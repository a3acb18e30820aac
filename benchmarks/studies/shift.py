"""Trained at one site, used at another: what alignment and a few labels of the other site are worth.

``python -m benchmarks.studies shift FOLDER``. None of the sets says where its images were made, so the second site
is made: its images have less contrast, are blurred and noisy (:data:`SITE`), as another machine might give them. Real
sites also differ in patients and in who labelled; that is not in here.

For each seed the training images are dealt in two halves by a hash: of one labels are used and images are as they are;
the other is the second site, whose images are changed and have no labels but, in some arms, ten. Every arm is fitted to
the same draws, has one schedule and the defaults of its method, and is scored once on the test split as it is, and once
on the test split as the second site would have taken it. Nothing is chosen on either; the penalty of a frozen linear
head is chosen within the labels of the fit. A file for each fit is kept in the folder, so a run that was stopped goes
on, and the table has what is there.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.studies.frozen_sets import NETWORK, network, real_sets
from benchmarks.studies.paired import interval, spread
from benchmarks.table import Table
from finetune.cases import Cases
from finetune.classifier.estimator import FewLabelClassifier
from finetune.classifier.site import Site
from finetune.images import ArrayPictures
from finetune.scores.bootstrap import paired_difference
from finetune.scores.metrics import auc
from finetune.shift.corruptions import CORRUPTIONS
from finetune.shift.pictures import Change, corrupted
from finetune.splits import shuffled
from finetune.study.compare import Pretrained

SEEDS = range(5)
SITE = (("contrast", 3), ("blur", 2), ("noise", 2))
"""Corruptions of the second site with their severities, one after the other."""
MOST = 400
"""Images of each site at most."""
LABELS = 10
"""Of the second site, spread over the classes."""
_FULL = {"strategy": "full", "max_steps": 100, "calibrate": False, "ensemble": "snapshots", "members": 1}
"""One snapshot, at the end: the schedule is run whole, in every arm."""
_FROZEN = {"head_options": {"reads": "embedding_mean_spread"}, "calibrate": False}
_CORAL, _ADVERSARIAL = {"name": "coral"}, {"name": "adversarial"}


@dataclass(frozen=True)
class Arm:
    """One way to make a classifier for the second site.

    Attributes:
        params: of the estimator.
        labels: of the second site.
        trained: whether the pretrained network is trained, else it is frozen.
        baseline: the arm it is compared with.
    """

    params: Mapping[str, Any]
    labels: int
    trained: bool
    baseline: str


def arms() -> dict[str, Arm]:
    """By name, in the order of the table."""
    found: dict[str, Arm] = {}
    for trained, base in ((False, _FROZEN), (True, _FULL)):
        where = "full" if trained else "frozen"
        plain = f"{where}, source only"
        aligned = {"CORAL": _CORAL, **({"adversarial": _ADVERSARIAL} if trained else {})}
        found[plain] = Arm(base, 0, trained, plain)
        for name, alignment in aligned.items():
            found[f"{where}, {name}"] = Arm({**base, "alignment": alignment}, 0, trained, plain)
        few = f"{where}, {LABELS} target labels"
        found[few] = Arm(base, LABELS, trained, plain)
        found[f"{few}, CORAL"] = Arm({**base, "alignment": _CORAL}, LABELS, trained, few)
        found[f"{where}, all target labels"] = Arm(base, MOST, trained, plain)
    return found


def as_taken(cases: Cases, seed: int) -> Cases:
    """The images as the second site takes them, kept in memory."""
    changes = [Change(CORRUPTIONS.named(name)(), severity) for name, severity in SITE]
    changed = corrupted(cases, changes, seed)
    assert changed.rows is not None
    studies = [changed.pictures.study(int(row)) for row in changed.rows]
    pixels = np.stack([study.images["image"].pixels for study in studies])
    spacing = [study.images["image"].spacing_mm for study in studies]
    spacing_NA = np.array(spacing, np.float32) if all(spacing) else None
    pictures = ArrayPictures(pixels, spacing_NA, cases.organ, cases.modality)
    return replace(cases, images=pictures, spacing_mm=None, rows=None)


def dealt(train: Cases, seed: int) -> tuple[Cases, Cases, np.ndarray]:
    """Labelled images of the first site, images of the second, and the places of :data:`LABELS` of these."""
    order = shuffled(len(train), seed, "sites")
    half = len(order) // 2
    source, target = train[np.sort(order[:half][:MOST])], train[np.sort(order[half:][:MOST])]
    strata_N = target.strata
    classes = np.unique(strata_N)
    drawn = [np.flatnonzero(strata_N == one)[: LABELS // len(classes)] for one in classes]
    return source, as_taken(target, seed), np.sort(np.concatenate(drawn))


def site_of(target: Cases, few: np.ndarray, labels: int, aligned: bool) -> Site | None:
    """What an arm is given of the second site."""
    if labels >= MOST:
        return Site(None, target)
    rest = np.setdiff1d(np.arange(len(target)), few)
    unlabelled = replace(target[rest], labels=None) if aligned else None
    if not labels:
        return Site(replace(target, labels=None)) if aligned else None
    return Site(unlabelled, target[few])


def place(folder: Path, name: str, arm: str, seed: int) -> Path:
    """Where a fit is kept."""
    return folder / "fits" / name / f"{arm.replace(' ', '-').replace(',', '')}-{seed}.npz"


@dataclass(frozen=True)
class Sites:
    """One draw of one set.

    Attributes:
        source: labelled images of the first site.
        target: images of the second.
        few: the places of :data:`LABELS` of these.
        tests: the test split as it is, ``source``, and as the second site takes it, ``target``.
    """

    source: Cases
    target: Cases
    few: np.ndarray
    tests: Mapping[str, Cases]


def fit(kept: Path, given: Arm, sites: Sites, seed: int, model: Callable[[], Pretrained]) -> None:
    """One arm on one draw, into a file; ``model`` gives the pretrained network."""
    backbone = model().backbone
    assert backbone is not None
    estimator = FewLabelClassifier(backbone, seed=seed, **given.params)
    site = site_of(sites.target, sites.few, given.labels, "alignment" in given.params)
    estimator.fit(sites.source, target_data=site)
    record = estimator.record_
    said = {where: estimator.predict_proba(test) for where, test in sites.tests.items()}
    told = {
        "given_sha256": record.given_sha256, "labelled": record.labelled_images, "target": record.target_images,
        "target_labelled": record.target_labelled, "chosen": record.chosen,
    }  # fmt: skip
    kept.parent.mkdir(parents=True, exist_ok=True)
    with kept.with_suffix(".partial").open("wb") as file:
        np.savez(file, record=json.dumps(told, default=str), **said)
    kept.with_suffix(".partial").rename(kept)


def run(folder: Path) -> Table:
    """Fit what is missing, seed by seed, and put it together."""
    sets, model = real_sets(folder), cache(lambda: network(folder))
    elsewhere = {name: as_taken(splits["test"], 0) for name, splits in sets.items()}
    for trained, seed, name in itertools.product((False, True), SEEDS, sets):  # the cheap ones come first
        wanted = {place(folder, name, arm, seed): each for arm, each in arms().items() if each.trained is trained}
        missing = {kept: arm for kept, arm in wanted.items() if not kept.is_file()}
        if missing:
            tests = {"source": sets[name]["test"], "target": elsewhere[name]}
            sites = Sites(*dealt(sets[name]["train"], seed), tests)
            for kept, arm in missing.items():
                fit(kept, arm, sites, seed, model)
                for cases in tests.values():
                    cases.pictures.memo.clear()
    return table(folder, sets)


def table(folder: Path, sets: Mapping[str, Mapping[str, Cases]]) -> Table:
    """Everything that is there, seeds that an arm and its baseline have in common."""
    rows = [row for name in sets for row in _rows(folder, name, sets[name]["test"])]
    changes = ", ".join(f"{name} of severity {severity}" for name, severity in SITE)
    return Table(
        title="Trained at one site, used at another",
        command="python -m benchmarks.studies shift FOLDER",
        columns=(
            "set", "arm", "seeds", "AUC at home", "AUC elsewhere", "gain elsewhere over", "over test subjects",
            "over seeds",
        ),
        rows=tuple(rows),
        remarks=f"The second site is made: {changes}, one after the other, on the same kind of images of other "
        f"subjects. AUC on the whole test split as it is (home) and as the second site takes it (elsewhere), mean, "
        f"lowest and highest over seeds. Source: up to {MOST} labelled training images; second site: up to {MOST} "
        "others. Gains with 95 % intervals: over test subjects, of the mean difference over seeds; and over seeds (t). "
        "One schedule and default weights; nothing was chosen on the second site or on the test split. Network: "
        f"{NETWORK}; full: all of it is trained, for 100 steps at the default rates; frozen: linear head, its penalty "
        "chosen within labels. All target labels: those of all images of the second site, as a bound. pneumoniamnist "
        f"is not the official file. torch {torch.__version__}.",
    )  # fmt: skip


def _rows(folder: Path, name: str, test: Cases) -> Iterator[tuple[str, ...]]:
    found = {arm: _kept(folder, name, arm) for arm in arms()}
    for arm, each in arms().items():
        mine, plain = found[arm], found[each.baseline]
        if not mine:
            continue
        areas = {
            where: [float(auc(test.known_labels, said[where], test.task)) for said in mine.values()]
            for where in ("source", "target")
        }
        cells = [name, arm, str(len(mine)), *(spread(areas[where]) for where in ("source", "target"))]
        common = sorted(set(mine) & set(plain))
        if arm == each.baseline or len(common) < 2:
            yield (*cells, "-", "-", "-")
            continue
        stacks = [np.stack([one[seed]["target"] for seed in common]) for one in (mine, plain)]
        over = paired_difference(auc, test.known_labels, *stacks, test.task, seed=0, subjects=test.subjects)
        by_seed = [
            float(auc(test.known_labels, first, test.task) - auc(test.known_labels, second, test.task))
            for first, second in zip(*stacks, strict=True)
        ]
        said = f"{over.estimate:+.3f} [{over.low:+.3f}, {over.high:+.3f}]"
        yield (*cells, each.baseline.partition(", ")[2], said, interval(by_seed))


def _kept(folder: Path, name: str, arm: str) -> dict[int, dict[str, np.ndarray]]:
    found = {}
    for seed in SEEDS:
        kept = place(folder, name, arm, seed)
        if kept.is_file():
            with np.load(kept) as arrays:
                found[seed] = {where: arrays[where] for where in ("source", "target")}
    return found
