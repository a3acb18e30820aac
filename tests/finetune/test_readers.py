from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from data_shards.sources.medmnist.source import MedMNIST
from data_shards.support.errors import DataError
from data_shards.vocabulary import Modality, Organ, Task
from data_shards.writing.writer import write_dataset
from finetune.readers import read_cases


def test_shards_and_archive_give_the_same_images_and_labels(shared_data: Path, tmp_path: Path) -> None:
    archive = shared_data / "medmnist" / "breastmnist.npz"
    write_dataset(MedMNIST("breastmnist", file=archive), tmp_path / "shards")
    from_archive, from_shards = read_cases(archive), read_cases(tmp_path / "shards")
    assert {split: len(part) for split, part in from_archive.items()} == {"train": 546, "val": 78, "test": 156}
    for split, part in from_archive.items():
        assert part.content_sha256() == from_shards[split].content_sha256()
        assert (part.task, part.official, dict(part.classes)) == (Task.binary, True, dict(from_shards[split].classes))
    with np.load(archive) as arrays:
        np.testing.assert_array_equal(from_archive["test"].images[:, 0], arrays["test_images"])
        np.testing.assert_array_equal(from_archive["test"].labels, arrays["test_labels"])


def test_a_reassembled_archive_is_marked_as_not_official(shared_data: Path) -> None:
    splits = read_cases(shared_data / "derived" / "pneumoniamnist_reassembled.npz")
    assert not splits["test"].official
    assert "pneumoniamnist_reassembled.npz" in splits["test"].note


def test_another_archive_under_an_official_name_is_refused(shared_data: Path, tmp_path: Path) -> None:
    shutil.copy(shared_data / "derived" / "pneumoniamnist_reassembled.npz", tmp_path / "pneumoniamnist.npz")
    with pytest.raises(DataError, match=r"pneumoniamnist\.npz: MD5 is"):
        read_cases(tmp_path / "pneumoniamnist.npz")


def test_what_is_not_a_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        read_cases(tmp_path / "nothing.npz")
    with pytest.raises(DataError, match="no image in this folder"):
        read_cases(tmp_path)
    (tmp_path / "photos.npz").write_bytes(b"")
    with pytest.raises(DataError, match=r"photos\.npz: the name does not begin with"):
        read_cases(tmp_path / "photos.npz")
    (tmp_path / "scan.nii.gz").write_bytes(b"")
    with pytest.raises(
        DataError, match=r"scan\.nii\.gz: a single file that is no npz; images are read from the folder"
    ):
        read_cases(tmp_path / "scan.nii.gz")
    with pytest.raises(DataError, match="a size can be given"):
        read_cases(tmp_path / "photos.npz", size=28)


def test_organ_and_modality_are_told_of_a_folder_of_images_only(tmp_path: Path) -> None:
    (tmp_path / "breastmnist.npz").write_bytes(b"")
    with pytest.raises(DataError, match="an organ can be given for a folder of images only"):
        read_cases(tmp_path / "breastmnist.npz", organ=Organ.breast)
    with pytest.raises(DataError, match="a modality can be given for a folder of images only"):
        read_cases(tmp_path / "breastmnist.npz", modality=Modality.ultrasound)
