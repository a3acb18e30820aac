"""What MLflow's pages say of a run beside its numbers: where it comes from, of whom, what it is and on which data."""

from __future__ import annotations

import getpass
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data_shards.storage.address import protocol_of
from data_shards.support.documents import digest
from data_shards.support.secrets import shown, without_secrets
from pretrain.config import PretrainConfig
from pretrain.data import open_datasets
from pretrain.engine import code_version

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

_DIGEST_LENGTH = 36  # mlflow.utils.validation.MAX_DATASET_DIGEST_SIZE


@dataclass(frozen=True)
class TrainingData:
    """One dataset of a run, by what identifies it."""

    name: str
    title: str
    address: str
    manifest_sha256: str
    split: str
    samples: int
    licence: str


def training_data(config: PretrainConfig) -> list[TrainingData]:
    """The datasets of a run.

    Raises:
        DataError: shards are missing.
    """
    return [
        TrainingData(
            name=dataset.card.name,
            title=dataset.card.title,
            address=shown(str(given.path)),
            manifest_sha256=dataset.manifest_digest,
            split="train",
            samples=dataset.layout.images,
            licence=dataset.card.licence,
        )
        for given, dataset in zip(config.data.datasets, open_datasets(config), strict=True)
    ]


def run_tags(config: PretrainConfig, data: Sequence[TrainingData]) -> dict[str, str]:
    """The tags that MLflow's pages read, and our own."""
    command = [Path(sys.argv[0]).name, *sys.argv[1:]]
    images = "; ".join(f"{each.title}: {each.samples} images" for each in data)
    note = (
        f"Pretraining of `{config.model.name}` without labels.\n\n"
        f"- objectives: {', '.join(config.objectives)}\n- data: {images}\n- folder: `{config.out}`\n"
    )
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # No entry for this user id, as in many containers.
        user = "unknown"
    return {
        "medformer.config_sha256": digest(config),
        "medformer.out": str(config.out),
        "medformer.version": code_version(),
        "mlflow.user": user,
        "mlflow.source.name": without_secrets(" ".join(command)),
        "mlflow.source.type": "JOB",  # shown as it is, where a LOCAL one is shown by its last folder
        "mlflow.note.content": note,
    }


def dataset_inputs(data: Sequence[TrainingData]) -> list[DatasetInput]:
    """The datasets as MLflow keeps them."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    return [
        DatasetInput(
            Dataset(
                name=each.name,
                digest=each.manifest_sha256[:_DIGEST_LENGTH],
                source_type=protocol_of(each.address) or "local",
                source=json.dumps({"uri": each.address}),
                profile=json.dumps({"samples": each.samples, "manifest_sha256": each.manifest_sha256}),
            ),
            [InputTag("mlflow.data.context", "training")],
        )
        for each in data
    ]
