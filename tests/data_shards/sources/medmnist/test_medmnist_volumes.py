"""The 3D sets, the other sizes, and the options of a document."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data_shards.sources.base import source_named
from data_shards.sources.medmnist.sets import CONTENT, published
from data_shards.sources.medmnist.source import MedMNIST, MedMNISTConfig
from data_shards.support.documents import parse
from data_shards.support.errors import ConfigError, DataError
from data_shards.vocabulary import Dimensionality, Modality, Organ
from tests.data_shards.sources.medmnist.test_medmnist import COUNTED, breast_arrays

CASES = {
    "organmnist3d": (Organ.abdomen, Modality.ct, ()),
    "nodulemnist3d": (Organ.chest, Modality.ct, (1.0,) * 3),
    "adrenalmnist3d": (Organ.abdomen, Modality.ct, (64 / 28,) * 3),
    "fracturemnist3d": (Organ.chest, Modality.ct, (64 / 28,) * 3),
    "vesselmnist3d": (Organ.brain, Modality.mri, ()),
    "synapsemnist3d": (Organ.brain, Modality.electron_microscopy, ()),
}


@pytest.fixture(autouse=True)
def no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the user's archives nor the network decide what a test finds."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MEDMNIST_ROOT", raising=False)


def marked_archive(path: Path, name: str, size: int = 28) -> None:
    """An archive of the shapes of a set whose images are zero but for marks that tell axes and rows apart."""
    archive = published(name, size)
    arrays = {}
    for split, count in archive.samples.items():
        images = np.zeros((count, *archive.image_shape), np.uint8)
        images[(slice(None), *(0,) * len(archive.image_shape))] = np.arange(count) % 251
        for axis in range(len(archive.image_shape)):
            place = [0] * len(archive.image_shape)
            place[axis] = 1
            images[(slice(None), *place)] = axis + 1
        arrays[f"{split}_images"] = images
        arrays[f"{split}_labels"] = (np.arange(count)[:, None] % len(archive.info["label"])).astype(np.uint8)
    np.savez_compressed(path, **arrays)


@pytest.mark.parametrize("name", CASES)
def test_volumes_keep_the_axes_of_the_archive_behind_one_channel(tmp_path: Path, name: str) -> None:
    organ, modality, spacing_mm = CASES[name]
    marked_archive(tmp_path / "marked.npz", name)
    source = MedMNIST(name, file=tmp_path / "marked.npz", unofficial="marks")
    train, val, test = COUNTED[name][3]
    assert len(source) == train + val + test and source.card.dimensionality == "volumetric"
    for position, key, row in (
        (0, "train-000000", 0),
        (train, "val-000000", 0),
        (train + val + 7, "test-000007", 7),
        (len(source) - 1, f"test-{test - 1:06d}", test - 1),
    ):
        sample = source.sample(position)
        pixels = sample.image.pixels
        assert sample.key == key and pixels.shape == (1, 28, 28, 28) and pixels.dtype == np.uint8
        assert [pixels[0, 0, 0, 0], pixels[0, 1, 0, 0], pixels[0, 0, 1, 0], pixels[0, 0, 0, 1]] == [row % 251, 1, 2, 3]
        assert (sample.organ, sample.image.modality) == (organ, modality)
        assert sample.image.spacing_mm == pytest.approx(spacing_mm)
        assert sample.image.dimensionality is Dimensionality.volumetric
        assert sample.label is not None and sample.label.tolist() == [row % len(source.card.classes)]
    with pytest.raises(IndexError):
        source.sample(len(source))


def test_colour_images_have_their_channels_first(tmp_path: Path) -> None:
    marked_archive(tmp_path / "marked.npz", "retinamnist")
    pixels = MedMNIST("retinamnist", file=tmp_path / "marked.npz", unofficial="marks").sample(0).image.pixels
    assert pixels.shape == (3, 28, 28) and [pixels[0, 1, 0], pixels[0, 0, 1], pixels[1, 0, 0]] == [1, 2, 3]


def test_an_image_is_the_same_subject_at_every_size_and_the_cards_differ(tmp_path: Path) -> None:
    samples = {}
    for size in (28, 64):
        marked_archive(tmp_path / f"{size}.npz", "breastmnist", size)
        source = MedMNIST("breastmnist", size=size, file=tmp_path / f"{size}.npz", unofficial="marks")
        samples[size] = source.sample(600)
        assert samples[size].image.pixels.shape == (1, size, size)
        assert source.card.name == ("breastmnist" if size == 28 else "breastmnist_64")
        assert source.card.title == f"BreastMNIST {size}x{size}"
    assert samples[28].subject == samples[64].subject and samples[28].key == samples[64].key


def test_the_archive_of_another_size_is_looked_for_by_its_own_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "breastmnist.npz", **breast_arrays())
    with pytest.raises(DataError, match=r"breastmnist_64: no breastmnist_64.npz in "):
        MedMNIST("breastmnist", size=64, root=tmp_path, download=False)
    (tmp_path / "breastmnist.npz").rename(tmp_path / "breastmnist_64.npz")
    with pytest.raises(DataError, match="expected 742edef2a1fd1524b2efff4bd7ba9364 for breastmnist_64"):
        MedMNIST("breastmnist", size=64, root=tmp_path)
    with pytest.raises(DataError, match=r"of shape \(546, 28, 28\), expected uint8 of shape \(546, 64, 64\)"):
        MedMNIST("breastmnist", size=64, file=tmp_path / "breastmnist_64.npz", unofficial="a test")


@pytest.mark.parametrize("size", [28, 64])
def test_the_published_volumes_are_read_as_numpy_reads_them(shared_data: Path, size: int) -> None:
    source = MedMNIST("adrenalmnist3d", size=size, root=shared_data / "medmnist")
    assert source.card.official and len(source) == 1188 + 98 + 298
    assert source.sample(0).image.spacing_mm == pytest.approx((64 / size,) * 3)
    with np.load(shared_data / "medmnist" / f"{source.card.name}.npz") as arrays:
        images, labels = arrays["val_images"], arrays["val_labels"]
    for row in range(98):
        sample = source.sample(1188 + row)
        assert (sample.image.pixels[0] == images[row]).all() and sample.split == "val"
        assert sample.label is not None and (sample.label == labels[row]).all()


def test_both_published_sizes_of_the_adrenal_set_show_the_same_cubes(shared_data: Path) -> None:
    # The spacing at 64 voxels rests on this: INFO gives the length of an edge for 28 voxels only.
    small, large = (MedMNIST("adrenalmnist3d", size=size, root=shared_data / "medmnist") for size in (28, 64))
    apart = []
    for position in range(1188, 1286):
        thick, thin = (source.sample(position).image.pixels[0] > 127 for source in (small, large))
        for axis in range(3):
            coarse, fine = (np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))[[0, -1]] for mask in (thick, thin))
            apart += [coarse[0] / 28 - fine[0] / 64, (coarse[1] + 1) / 28 - (fine[1] + 1) / 64]
    assert np.abs(apart).mean() < 0.5 / 28 and abs(np.mean(apart)) < 0.2 / 28


def options(**content: object) -> MedMNISTConfig:
    return parse(MedMNISTConfig, dict(content), "options")


def test_a_document_names_sets_and_size(tmp_path: Path) -> None:
    np.savez(tmp_path / "noise.npz", **breast_arrays())
    file = {"file": str(tmp_path / "noise.npz"), "unofficial": "noise"}
    kind = source_named("medmnist")
    (source,) = kind.from_config(options(sets=["breastmnist"], **file))
    assert source.card.note == "not the official archive: noise" and len(source) == 780
    assert kind.Config is MedMNISTConfig
    with pytest.raises(ConfigError, match="a file is the archive of one set, and 2 sets are named"):
        kind.from_config(options(sets=["breastmnist", "bloodmnist"], **file))
    for wrong in ({}, {"all": True, "sets": ["breastmnist"]}, {"all": True, "size": 5}):
        with pytest.raises(ConfigError, match="name the sets, or say all=true"):
            kind.from_config(options(**wrong))
    with pytest.raises(ConfigError, match="unknown key 'szie'; did you mean 'size'"):
        options(szie=28)
    assert all(field.description for field in MedMNISTConfig.model_fields.values())


@pytest.mark.parametrize("size, first_missing", [(28, "pathmnist"), (64, "pathmnist_64"), (224, "pathmnist_224")])
def test_all_means_every_set_of_the_size(tmp_path: Path, size: int, first_missing: str) -> None:
    with pytest.raises(DataError, match=f"^{first_missing}: no {first_missing}.npz in"):
        MedMNIST.from_config(options(all=True, size=size, root=str(tmp_path), download=False))
    asked = []

    class Recorder(MedMNIST):
        def __init__(self, name: str, **given: object) -> None:
            asked.append((name, given["size"]))

    Recorder.from_config(options(all=True, size=size))
    expected = list(CONTENT) if size in (28, 64) else [name for name in CONTENT if not name.endswith("3d")]
    assert asked == [(name, size) for name in expected]
