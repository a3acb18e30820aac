"""Volumes are read, described and adapted to as planes are, by the same weights."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_shards.sample import Image
from data_shards.sources.medmnist.source import MedMNIST
from data_shards.support.errors import DataError
from data_shards.vocabulary import Modality
from data_shards.writing.writer import write_dataset
from finetune.fit.room import BATCH_VOXELS, studies_at_once
from finetune.images import Study
from finetune.readers import read_cases
from tests.finetune.samples import solid_blobs, tiny_backbone

QUICK = {"max_steps": 60, "batch_size": 8, "learning_rate": 3e-3, "backbone_rate": 1e-3}
WAYS = [("linear", "frozen"), ("attention", "frozen"), ("linear", "full")]


def test_an_archive_and_shards_of_volumes_give_the_same_images_labels_and_spacing(
    shared_data: Path, tmp_path: Path
) -> None:
    archive = shared_data / "medmnist" / "adrenalmnist3d.npz"
    write_dataset(MedMNIST("adrenalmnist3d", file=archive), tmp_path / "shards")
    from_archive, from_shards = read_cases(archive), read_cases(tmp_path / "shards")
    assert {split: len(part) for split, part in from_archive.items()} == {"train": 1188, "val": 98, "test": 298}
    for split, part in from_archive.items():
        assert part.content_sha256() == from_shards[split].content_sha256()
        for found in (part.spacing_mm, from_shards[split].spacing_mm):
            np.testing.assert_array_equal(found, np.full((len(part), 3), 64 / 28, np.float32))
    with np.load(archive) as arrays:
        np.testing.assert_array_equal(from_archive["val"].images[:, 0], arrays["val_images"])


def test_unknown_spacing_stays_unknown(shared_data: Path) -> None:
    for part in read_cases(shared_data / "medmnist" / "breastmnist.npz").values():
        assert part.spacing_mm is None
    images = solid_blobs(4)
    assert replace(images, spacing_mm=np.full((4, 3), math.nan)).spacing_mm is None
    partly = replace(images, spacing_mm=np.array([[2.0, 1.0, 1.0], *[[math.nan] * 3] * 3]))
    assert np.isnan(partly.spacing_mm[1:]).all() and partly.select(np.array([0])).spacing_mm.tolist() == [[2, 1, 1]]


def test_no_more_voxels_than_fit_are_taken_at_a_time() -> None:
    def at_once(*shape: int) -> int:
        image = Image(np.zeros(shape, np.uint8), Modality.mri, ())
        return studies_at_once(tiny_backbone().eval(), Study({"image": image}), dense=False)

    assert at_once(1, 28, 28) == 256
    assert at_once(1, 28, 28, 28) == BATCH_VOXELS // 28**3
    assert at_once(1, 120, 120, 120) == 1


def test_a_table_names_volumes_and_refuses_to_mix_them_with_planes(tmp_path: Path) -> None:
    images = solid_blobs(8, seed=1)
    for index, volume in enumerate(images.images):
        np.save(tmp_path / f"{index}.npy", volume)
    table = tmp_path / "table.csv"
    table.write_text("file,label,split\n" + "".join(f"{i}.npy,{i % 2},train\n" for i in range(8)))
    train = read_cases(tmp_path, csv=table)["train"]
    found = [train.pictures.study(int(row)).images["image"] for row in train.rows]
    np.testing.assert_array_equal(np.stack([image.pixels for image in found]), images.images)
    assert {image.spacing_mm for image in found} == {()}
    (small,) = read_cases(tmp_path, csv=table, size=8).values()
    assert small.pictures.study(0).images["image"].pixels.shape == (1, 8, 8, 8)
    np.save(tmp_path / "5.npy", images.images[5, 0, 0])
    with pytest.raises(DataError, match="planes and volumes are mixed: row 2 of the table is volumetric, row 7"):
        read_cases(tmp_path, csv=table)
