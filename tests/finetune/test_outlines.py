"""What is told of datasets before they are read: by an evaluation, of all of them before the first is computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_shards.sources.medmnist.source import MedMNIST
from data_shards.support.documents import parse
from data_shards.support.errors import DataError
from data_shards.writing.writer import write_dataset
from finetune.config import EvaluateConfig
from finetune.evaluation import evaluate_bundles
from finetune.readers import outline, read_cases
from tests.finetune.samples import blobs


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Sixteen images and a table of their labels and splits."""
    folder = tmp_path / "images"
    folder.mkdir()
    lines = ["file,label,split"]
    for index, pixels in enumerate(blobs(16, seed=1).images):
        np.save(folder / f"{index}.npy", pixels)
        lines.append(f"{index}.npy,{'ab'[index % 2]},{'train' if index < 8 else 'test'}")
    (folder / "table.csv").write_text("\n".join(lines))
    return folder


@pytest.mark.parametrize(
    ("data", "more", "message"),
    [
        (["breastmnist.npz", "nowhere"], {}, "nowhere: no such file or folder"),
        (["breastmnist.npz", "images"], {}, "images: there is no test split"),
        (["breastmnist.npz", "breastmnist.npz"], {}, "another of the datasets is called breastmnist, too"),
        (["images", "images"], {"csv": "table.csv"}, "another of the datasets is called table, too"),
        (["images", "breastmnist.npz"], {"csv": "table.csv"}, r"npz: a single file; a table \(csv\) is for a folder"),
        (["images", "shards"], {"csv": "table.csv"}, r"shards: a folder of shards; a table \(csv\) is for a folder"),
        (["images", "images"], {"labels": ["side"]}, "label columns are named and there is no table"),
        (["breastmnist.npz"], {"size": 32}, "a size can be given for a folder of images only"),
        (["breastmnist.npz"], {"intensity": "model"}, "its values have 8 bits"),
        (["retinamnist_short.npz", "breastmnist.npz"], {}, "retinamnist_short"),
    ],
)
def test_datasets_that_cannot_be_evaluated_are_told_before_a_model_is_opened(
    images: Path, shared_data: Path, tmp_path: Path, data: list[str], more: dict[str, Any], message: str
) -> None:
    places = {"images": images, "nowhere": tmp_path / "nowhere", "shards": tmp_path / "shards"}
    if "shards" in data:
        write_dataset(MedMNIST("breastmnist", file=shared_data / "medmnist" / "breastmnist.npz"), tmp_path / "shards")
    (tmp_path / "retinamnist_short.npz").write_bytes(b"short")
    places["retinamnist_short.npz"] = tmp_path / "retinamnist_short.npz"
    content = {"models": ["m"], "data": [places.get(name, shared_data / "medmnist" / name) for name in data], **more}
    if "csv" in more:
        content["csv"] = images / "table.csv"
    config = parse(EvaluateConfig, content, "")
    with pytest.raises(DataError, match=message):
        evaluate_bundles(config, {"m": tmp_path / "no model"}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_told_of_a_dataset_before_it_is_read_is_what_reading_finds(
    images: Path, shared_data: Path, tmp_path: Path
) -> None:
    for split, first in (("train", 0), ("test", 8)):
        for index in range(first, first + 8):
            place = tmp_path / "a b" / split / "ab"[index // 2 % 2]
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{index}.npy").write_bytes((images / f"{index}.npy").read_bytes())
    for path, csv in (
        (tmp_path / "a b", None),
        (images, images / "table.csv"),
        (shared_data / "medmnist" / "breastmnist.npz", None),
    ):
        told, found = outline(path, csv), read_cases(path, csv=csv)
        assert {part.name for part in found.values()} == {told.name}
        assert told.splits is None or told.splits == tuple(found)
        assert told.kind == "files" or told.task is next(iter(found.values())).task
