"""The report of the demonstration, collected from what its stages wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from data_shards.format.manifest import Manifest
from data_shards.support.documents import digest
from data_shards.support.files import sha256_of
from finetune.readers import read_cases
from finetune.report.collect import (
    arms_of,
    auc_differences,
    confusion_of,
    data_set,
    embedding_of,
    few_label_results,
    fit_curves,
    probe_results,
    samples_of,
)
from finetune.report.document import Curve, Pretraining, ReportData, Sample
from finetune.study.arms import FINETUNED
from finetune.study.compare import ComparisonRow
from finetune.study.probing import EvaluationRow
from finetune.study.representations import Frozen
from finetune.study.summary import remarks
from pretrain.bundle import load_bundle
from pretrain.config import PretrainConfig
from pretrain.meter import read_metrics

_CURVES = {
    "loss": "",
    "images_per_s": "images/s",
    "data_wait": "share of time",
    "lr": "",
    "grad_norm": "",
    "embedding_std": "",
    "effective_rank": "dimensions",
}


@dataclass(frozen=True)
class Findings:
    """What the stages of a demonstration left behind.

    Attributes:
        shards: manifest of each folder of shards.
        config: of the pretraining.
        bundle: the model that was pulled back.
        probes: rows of the evaluation.
        few: rows of the few-label comparison.
        notes: sentences on the data.
        command: how to repeat it.
    """

    shards: Mapping[Path, Manifest]
    config: PretrainConfig
    bundle: Path
    probes: Sequence[EvaluationRow]
    few: Sequence[ComparisonRow]
    notes: tuple[str, ...]
    command: str


def report(findings: Findings, pretraining_s: float) -> ReportData:
    """Everything the result page says."""
    bundle = load_bundle(findings.bundle)
    network = Frozen("pretrained", bundle.backbone)
    datasets, embeddings = [], []
    samples: list[Sample] = []
    for folder, manifest in findings.shards.items():
        splits = read_cases(folder)
        datasets.append(data_set(splits, manifest.card.title, manifest.card.licence))
        samples += samples_of(splits["test"])  # published images, or phantoms: nobody's secret
        val = splits["val"]
        embeddings.append(embedding_of(val, network(val), "validation images, pretrained network, no labels used"))
    shown = {
        row.dataset: row for row in reversed(findings.few) if row.arm == FINETUNED and _is_largest(row, findings.few)
    }
    config = findings.config
    return ReportData(
        title="Medformer: pretraining and few labels, a demonstration",
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        seed=config.seed,
        config_sha256=digest(config),
        code_version=str(bundle.provenance["code_version"]),
        command=findings.command,
        notes=(*findings.notes, *remarks(findings.few)),
        datasets=tuple(datasets),
        arms=arms_of(findings.few),
        interval=f"95 % t interval over {len({row.seed for row in findings.few})} paired draws",
        pretraining=_pretraining(config, pretraining_s, sum(p.numel() for p in bundle.backbone.parameters())),
        few_label=few_label_results(findings.few),
        differences=auc_differences(findings.few),
        fits=fit_curves(findings.few),
        probes=probe_results(findings.probes),
        confusions=tuple(confusion_of(row) for row in shown.values()),
        embeddings=tuple(embeddings),
        samples=tuple(samples),
        hashes={
            "model.safetensors sha256": sha256_of(findings.bundle / "model.safetensors"),
            **{f"manifest of {entry['name']}": entry["manifest_sha256"] for entry in bundle.provenance["datasets"]},
        },
    )


def _is_largest(row: ComparisonRow, rows: Sequence[ComparisonRow]) -> bool:
    return row.labelled_images == max(other.labelled_images for other in rows if other.dataset == row.dataset)


def _pretraining(config: PretrainConfig, seconds: float, parameters: int) -> Pretraining:
    lines = read_metrics(config.out / "metrics.jsonl")
    steps = tuple(int(line["step"]) for line in lines)
    curves = [
        Curve(name=name.replace("_", " "), unit=unit, steps=steps, values=tuple(line[name] for line in lines))
        for name, unit in _CURVES.items()
    ]
    facts = {
        "network": f"{config.model.name}, {parameters:,} parameters",
        "objectives": ", ".join(config.objectives),
        "epochs": str(config.schedule.epochs),
        "global batch": f"{config.data.batch_size} images",
        "workers": f"{config.cluster.workers} (Ray Train, DeepSpeed)",
        "time": f"{seconds / 60:.1f} min, start of the workers included",
    }
    return Pretraining(facts=facts, curves=tuple(curves))
