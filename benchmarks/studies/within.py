"""Are volumes of one channel of use to colour images? Cross-validated within the training labels of retinamnist.

``python -m benchmarks.studies within FOLDER``, with the folder of ``transfer``, whose networks are used. The test split
of retinamnist has 400 images and says little about small differences; here each of 1,080 images is predicted by probes
that were fitted on other images, and no test split is touched. No network has seen these images.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from benchmarks.studies.paired import interval, spread
from benchmarks.studies.runs import pretrained, shards, source
from benchmarks.studies.transfer import READS, jobs
from benchmarks.table import Table
from finetune.backbones import fresh_twin
from finetune.cases import Cases
from finetune.readers import read_cases
from finetune.scores.metrics import auc
from finetune.splits import selection_folds, stratified_folds
from finetune.study.probes import linear_probe
from finetune.study.representations import Frozen
from pretrain.bundle import load_bundle

DATASET = "retinamnist"
FOLDS = 5
REPEATS = 2


def held_out(labelled: Cases) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Positions to fit on and to predict: every fold of every repeat."""
    for repeat in range(REPEATS):
        folds_N = stratified_folds(labelled.strata, FOLDS, repeat, labelled.subjects)
        yield from ((np.flatnonzero(folds_N != fold), np.flatnonzero(folds_N == fold)) for fold in range(FOLDS))


def cross_validated(features_ND: np.ndarray, labelled: Cases) -> float:
    """Mean AUC of the linear probe on the folds, its strength chosen within the other folds each time."""
    labels, target = labelled.known_labels, labelled.target
    aucs = []
    for fit, rest in held_out(labelled):
        subjects = None if labelled.subjects is None else labelled.subjects[fit]
        folds = selection_folds(labelled.strata[fit], 0, subjects)
        probe = linear_probe(features_ND[fit], labels[fit], features_ND[rest], target, folds=folds)
        aucs.append(float(auc(labels[rest], probe.probabilities, labelled.task)))
    return float(np.mean(aucs))


def run(folder: Path) -> Table:
    """Pretrain what is missing, probe everything."""
    labelled = read_cases(shards(folder / "shards", source(DATASET)))["train"]
    found: dict[tuple[str, str], list[float]] = {}
    for (kind, seed), job in jobs(folder).items():
        if kind != "volumes":
            continue
        bundle = load_bundle(pretrained(job))
        networks = {"pretrained": bundle.backbone, "random": fresh_twin(bundle)(seed).eval()}
        for reads in READS:
            for of, network in networks.items():
                found.setdefault((reads, of), []).append(
                    cross_validated(Frozen(of, network, reads)(labelled), labelled)
                )
    rows = []
    for reads in READS:
        learned, random = found[reads, "pretrained"], found[reads, "random"]
        differences = [a - b for a, b in zip(learned, random, strict=True)]
        above = sum(difference > 0 for difference in differences)
        rows.append((reads, spread(random), spread(learned), interval(differences), f"{above} of {len(differences)}"))
    return Table(
        title="Pretrained on volumes, used on colour images: within the training labels",
        command="python -m benchmarks.studies within FOLDER",
        columns=("read", "random network", "pretrained", "difference", "seeds above nothing"),
        rows=tuple(rows),
        remarks=f"AUC of a linear probe of frozen features on held-out folds of the training split of {DATASET} "
        f"({len(labelled):,} images), {FOLDS} folds by {REPEATS} repeats; mean (lowest to highest) of "
        f"{len(differences)} seeds, difference with its 95 % t interval over paired seeds. The networks are those of "
        f"`transfer`, pretrained on volumes of one channel; torch {torch.__version__}.",
    )
