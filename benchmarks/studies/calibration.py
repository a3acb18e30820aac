"""Do probabilities come true, and do sets hold what they state? On labels that were held out, of four real sets.

``python -m benchmarks.studies calibration FOLDER``, with the folder of ``strategies``, whose network is used. Each draw
of labels is fitted once; what the draw left of the training split is predicted with the temperature that the fit found
and without it. No test split is touched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.studies.draws import network
from benchmarks.studies.paired import interval
from benchmarks.studies.runs import PLANES, VOLUMES, shards, source
from benchmarks.table import Table
from finetune.classifier.estimator import FewLabelClassifier
from finetune.readers import read_cases
from finetune.scores.calibration import brier, expected_calibration_error
from finetune.subsets import Budget, draw

SEEDS = range(5)
PER_CLASS = 50
MOST = 600
"""Held-out images of a set that are predicted, drawn by the seed."""
COVERAGE = 0.9
ARMS: Mapping[str, dict[str, Any]] = {
    "linear": {},
    "attention": {"head": "attention"},
    "full, 100 steps": {"strategy": "full", "max_steps": 100, "learning_rate": 1e-3},
}


def run(folder: Path) -> Table:
    """Fit every draw and predict what it left."""
    backbone = network(folder).backbone
    rows = []
    for name in (*PLANES, *VOLUMES):
        pool = read_cases(shards(folder / "shards", source(name)))["train"]
        shared = pool.shared()
        for arm, params in ARMS.items():
            found = []
            for seed in SEEDS:
                subset = draw(pool, Budget(per_class=PER_CLASS), seed)
                rest = np.setdiff1d(np.arange(len(pool)), subset.positions)
                rest = np.sort(np.random.default_rng(seed).permutation(rest)[:MOST])
                model = FewLabelClassifier(backbone, seed=seed, coverage=COVERAGE, **params)
                model.fit(shared[subset.positions])
                found.append(_measured(model, shared[rest]))
            rows.append((name, arm, *_told(np.array(found))))
    return Table(
        title="Calibration on held-out labels",
        command="python -m benchmarks.studies calibration FOLDER",
        columns=(
            "set",
            "arm",
            "temperature",
            "ECE before",
            "after",
            "difference",
            "Brier difference",
            "covered",
            "set size",
        ),
        rows=tuple(rows),
        remarks=f"{PER_CLASS} labels per class (all there are of rarer classes), {len(SEEDS)} draws; up to {MOST} "
        "other training images are predicted. Expected calibration error of the likeliest class in 15 bins and Brier "
        "score, without and with the temperature found on held-out predictions within the given labels; differences "
        f"with 95 % t intervals over draws. Sets state {COVERAGE:g}: covered is the share of images whose set holds "
        "the label; probabilities and sets are those of the prevalence that was drawn, which is even, so the images "
        "that are predicted are weighted to it. Network as in `strategies`. "
        f"torch {torch.__version__}.",
    )


def _measured(model: FewLabelClassifier, rest: Any) -> tuple[float, ...]:
    """Temperature, ECE before and after, Brier before and after, coverage, mean size of the sets."""
    predictor, labels = model.predictor_, rest.known_labels
    target = predictor.target
    counts = np.bincount(labels[:, 0], minlength=len(target.classes))
    given = np.array(list(model.record_.per_class.values()), np.float64)
    with np.errstate(divide="ignore"):
        weights = np.where(counts > 0, given / given.sum() / counts, 0)[labels[:, 0]]
    weights = weights / weights.mean()
    said = predictor.predict_proba(rest)
    before = replace(predictor, temperature=1.0).predict_proba(rest)
    task = target.task
    assert predictor.conformal is not None
    sets = predictor.conformal.sets(said)
    covered = np.average(sets[np.arange(len(labels)), labels[:, 0]], weights=weights)
    return (
        predictor.temperature,
        *(float(expected_calibration_error(labels, each, task, weights)) for each in (before, said)),
        *(float(brier(labels, each, task, weights)) for each in (before, said)),
        float(covered),
        float(np.average(sets.sum(axis=1), weights=weights)),
    )


def _told(found_SM: np.ndarray) -> tuple[str, ...]:
    temperature, before, after, brier_before, brier_after, covered, size = found_SM.T
    return (
        f"{temperature.mean():.2f}",
        f"{before.mean():.3f}",
        f"{after.mean():.3f}",
        interval(list(after - before)),
        interval(list(brier_after - brier_before)),
        f"{covered.mean():.3f} ({covered.min():.3f} to {covered.max():.3f})",
        f"{size.mean():.2f}",
    )
