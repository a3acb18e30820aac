"""A report with realistic numbers, for the report tests."""

from __future__ import annotations

from statistics import fmean, stdev

import numpy as np

from finetune.report.document import (
    Confusion,
    Curve,
    DataSet,
    Difference,
    Embedding,
    Estimate,
    FewLabelResult,
    Pretraining,
    ProbeResult,
    ReportData,
)
from finetune.report.projection import principal_plane

BREAST, CHEST, RETINA = "breastmnist", "pneumoniamnist", "retinamnist"
SEEDS = (0, 1, 2, 3, 4)
T_97_5 = 2.776  # four degrees of freedom


def sample_report() -> ReportData:
    """Two official data sets and an unofficial one; pretraining helps on one, not on another."""
    rng = np.random.default_rng(7)
    levels = {
        (BREAST, 16): (0.58, 0.60),
        (BREAST, 64): (0.66, 0.67),
        (BREAST, 256): (0.78, 0.75),
        (CHEST, 16): (0.80, 0.90),
        (CHEST, 64): (0.87, 0.94),
        (CHEST, 256): (0.93, 0.965),
        (RETINA, 16): (0.60, 0.66),
        (RETINA, 64): (0.66, 0.70),
        (RETINA, 256): (0.70, 0.73),
    }
    results, differences = [], []
    for (name, budget), pair in levels.items():
        auc = {
            arm: tuple(map(float, rng.normal(level, 0.02, 5).clip(0, 1))) for arm, level in zip(ARMS, pair, strict=True)
        }
        results += [_result(name, budget, arm, values, rng) for arm, values in auc.items()]
        gaps = [after - before for before, after in zip(*auc.values(), strict=True)]
        half = T_97_5 * stdev(gaps) / 5**0.5
        mean = fmean(gaps)
        differences.append(
            Difference(
                dataset=name,
                budget=budget,
                arm="pretrained",
                baseline="from scratch",
                mean=mean,
                low=mean - half,
                high=mean + half,
            )
        )
    return ReportData(
        title="Medformer demo",
        created="2026-11-21 08:30 UTC",
        seed=0,
        config_sha256="5f" * 32,
        code_version="0.1.0 (3f2a91c)",
        command="make demo DATA=../shared/data",
        datasets=(
            _dataset(BREAST, "breast ultrasound", ("malignant", "normal, benign"), (546, 78, 156)),
            _dataset(
                CHEST,
                "chest X-ray",
                ("normal", "pneumonia"),
                (4708, 524, 624),
                official=False,
                note="reassembled from copies: content as PneumoniaMNIST, order is not, so its MD5 cannot match",
            ),
            _dataset(RETINA, "fundus camera", ("0", "1", "2", "3", "4"), (1080, 120, 400), task="ordinal"),
        ),
        arms=ARMS,
        interval="95 % t interval over paired seeds",
        pretraining=_pretraining(rng),
        few_label=tuple(results),
        differences=tuple(differences),
        probes=tuple(_probes(rng)),
        confusions=(
            Confusion(dataset=CHEST, caption="pretrained, 256 labels, seed 0", counts=((201, 33), (12, 378))),
            Confusion(
                dataset=RETINA,
                caption="pretrained, 256 labels, seed 0",
                counts=(
                    (150, 10, 9, 4, 1),
                    (20, 12, 10, 3, 1),
                    (22, 12, 40, 14, 4),
                    (6, 5, 24, 27, 6),
                    (2, 1, 5, 7, 5),
                ),
            ),
        ),
        embeddings=(_embedding(CHEST, 624, 2, rng), _embedding(RETINA, 400, 5, rng)),
        hashes={"model bundle (sha256)": "9c" * 32, f"shards of {BREAST} (sha256)": "a1" * 32},
    )


ARMS = {
    "from scratch": "the same network, randomly initialised, every weight trained on the given labels",
    "pretrained": "weights pulled from the registry, every weight trained on the given labels",
}


def _dataset(name: str, title: str, classes: tuple[str, ...], counts: tuple[int, int, int], **more: object) -> DataSet:
    images = dict(zip(("train", "val", "test"), counts, strict=True))
    content = {"licence": "CC BY 4.0", "task": "binary", "checksum": "md5 750601b1f35ba3300ea97c75c52ff8f6", **more}
    return DataSet.model_validate({"name": name, "title": title, "classes": classes, "images": images, **content})


def _result(name: str, budget: int, arm: str, auc: tuple[float, ...], rng: np.random.Generator) -> FewLabelResult:
    lower = tuple(float(value - 0.1) for value in auc)
    return FewLabelResult(
        dataset=name,
        budget=budget,
        arm=arm,
        seeds=SEEDS,
        auc=auc,
        accuracy=lower,
        balanced_accuracy=tuple(value - 0.04 for value in lower),
        index_sha256=tuple(rng.bytes(32).hex() for _ in SEEDS),
        distinct_labelled=(budget,) * 5,
    )


def _pretraining(rng: np.random.Generator) -> Pretraining:
    steps = tuple(range(1, 601))
    falling = 12 * np.exp(-np.arange(600) / 150) + 4 + rng.normal(0, 0.3, 600)
    rate = np.interp(np.arange(600), [0, 60, 600], [0, 1e-3, 0]).tolist()
    return Pretraining(
        facts={
            "model": "medformer_nano, 1.1 M parameters",
            "objective": "Barlow Twins",
            "images": "6,334 in 3 data sets",
            "epochs": "12 (600 steps of 128)",
            "workers": "2 on CPU",
            "time": "2 min 31 s",
        },
        curves=(
            Curve(name="loss", steps=steps, values=tuple(falling.tolist())),
            Curve(name="throughput", unit="images/s", steps=steps, values=tuple(rng.normal(820, 30, 600).tolist())),
            Curve(name="data wait", unit="share", steps=steps, values=tuple(rng.uniform(0, 0.04, 600).tolist())),
            Curve(name="learning rate", steps=steps, values=tuple(rate)),
        ),
    )


def _probes(rng: np.random.Generator) -> list[ProbeResult]:
    levels = {BREAST: (0.671, 0.60, 0.64), CHEST: (0.885, 0.856, 0.926), RETINA: (0.66, 0.65, 0.71)}
    return [
        ProbeResult(
            dataset=name,
            probe="linear",
            features=features,
            labels=54,
            auc=_estimate(level),
            accuracy=_estimate(level - 0.08),
            balanced_accuracy=_estimate(level - 0.12),
        )
        for name, row in levels.items()
        for features, level in zip(("raw pixels", "random network", "pretrained"), row, strict=True)
    ]


def _estimate(value: float) -> Estimate:
    return Estimate(value=value, low=value - 0.03, high=value + 0.025)


def _embedding(name: str, count: int, classes: int, rng: np.random.Generator) -> Embedding:
    labels = rng.integers(0, classes, count)
    centres = rng.normal(0, 2, (classes, 16))
    points, explained = principal_plane(centres[labels] + rng.normal(0, 1.3, (count, 16)))
    return Embedding(
        dataset=name,
        caption="test images, pretrained network",
        labels=tuple(labels.tolist()),
        points=tuple((float(x), float(y)) for x, y in points),
        explained=explained,
    )
