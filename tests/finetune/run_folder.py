"""Folders as a fine-tuning leaves them, of predictions that are made up: for tests of pages, without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from data_shards.support.documents import digest, write_resolved
from data_shards.support.files import finite, write_atomic, write_json
from data_shards.vocabulary import Task
from finetune.cases import Cases
from finetune.classifier.estimate import Estimate
from finetune.classifier.threshold import operating_point, sensitivity_specificity
from finetune.config import FinetuneConfig
from finetune.estimated import data_summary, estimated_rows
from finetune.scoring import Scores
from finetune.tables import as_csv

NAMES = {
    Task.binary: ("benign", "malignant"),
    Task.multiclass: ("cyst", "nodule", "fat", "<b>other</b>"),
    Task.ordinal: ("none", "mild", "severe"),
    Task.multilabel: ("effusion", "oedema"),
    Task.regression: ("volume in ml",),
}


def made_up(
    task: Task, count: int, *, subjects: bool = False, skill: float = 1.5, seed: int = 0, temperature: float = 1.0
) -> tuple[Cases, Any]:
    """Cases without images and what is said of them, the less surely the higher the temperature."""
    rng = np.random.default_rng(seed)
    names = NAMES[task]
    if task is Task.regression:
        labels = rng.normal(50, 10, (count, 1))
        said = labels.mean() + (labels + rng.normal(0, 6, labels.shape) - labels.mean()) / temperature
    elif task is Task.multilabel:
        labels = rng.integers(0, 2, (count, len(names)))
        said = 1 / (1 + np.exp(-(skill * (labels - 0.5) + rng.normal(0, 1, labels.shape)) / temperature))
    else:
        labels = rng.choice(len(names), (count, 1), p=np.arange(len(names), 0, -1) / sum(range(len(names) + 1)))
        odds = rng.normal(0, 1, (count, len(names))) + skill * (labels == np.arange(len(names)))
        odds = np.exp(odds / temperature)
        said = odds / odds.sum(axis=1, keepdims=True)
    cases = Cases(
        name="made-up",
        images=np.zeros((count, 1, 4, 4), np.uint8),
        labels=labels,
        task=task,
        classes=dict(enumerate(names)),
        keys=np.array([f"row {place + 2}" for place in range(count)]),
        subjects=np.array([f"Anna {place // 2}" for place in range(count)]) if subjects else None,
        official=False,
        note="made up for a test",
        licence="CC0",
        source={"sha256": "ab" * 32},
    )
    return cases, said


def write_run(
    folder: Path, task: Task, count: int = 120, *, split: str = "test", repeats: int = 1, **made: Any
) -> Path:
    """A folder with everything but the classifier."""
    cases, said_NC = made_up(task, count, **made)
    rng = np.random.default_rng(1)
    said = said_NC[None]
    if repeats > 1:
        weights = rng.uniform(0.7, 1, (repeats, count, 1))
        said = weights * said + (1 - weights) * said.mean(axis=1, keepdims=True)
    estimate: dict[str, Any] = {}
    if task is Task.binary:
        point = operating_point(cases.known_labels, said_NC)
        above = said.mean(axis=0)[:, 1] > point.threshold
        both = sensitivity_specificity(
            cases.known_labels, said.mean(axis=0), point.threshold, seed=0, subjects=cases.subjects
        )
        estimate = {"point": point, "decided": above, "sensitivity": both[0], "specificity": both[1]}
    told = Estimate(f"{split} split", Scores.of(cases, said), said, positive=NAMES[task][1:2], **estimate)
    config = FinetuneConfig(model="medformer_nano", data=Path("gone.npz"))
    record = {
        "backbone": "a network",
        "pretrained": True,
        "seed": 0,
        "index_sha256": "",
        "given_sha256": "cd" * 32,
        "distinct_labelled_images": 20,
        "selection": "none",
        "chosen": {
            "training": {"steps": [10, 20], "loss": [0.7, 0.5]},
            "held_out_curve": {"steps": [10, 20], "loss": [0.8, 0.75]},
            "held_out_loss": {"100 steps": 0.75},
        },
        "members": 1,
        "temperature": 1.2,
        "calibrated_on": 20,
    }
    metrics = {
        "config_sha256": digest(config),
        "code_version": "1",
        "dataset": cases.name,
        "task": task.name,
        "official": cases.official,
        "note": cases.note,
        "source": dict(cases.source),
        "licence": cases.licence,
        "classes": {str(index): name for index, name in cases.classes.items()},
        "shortage": "",
        "notes": [],
        "fit": record,
        "estimates": {split: told.as_json()},
        "data": data_summary({split: cases}, cases),
    }
    folder.mkdir(parents=True)
    write_atomic(folder / "predictions.csv", as_csv(estimated_rows(cases, told, split)))
    write_json(folder / "metrics.json", finite(metrics))
    write_resolved(config, folder)
    return folder
