from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from data_shards.phantoms.recipes import FLAT
from data_shards.sources.phantoms import Phantoms
from data_shards.support.errors import DataError
from data_shards.writing.writer import write_dataset

NAMES = list(FLAT)


# Of the first 24 samples of seed 0, 28 x 28: shards, labels and figures that were made with them stay what they are.
DIGESTS = {
    "phantom-chest": "bd72d07e52e6dcdb6752cffc931144812a3427c12233d18c19815c2ed78674ae",
    "phantom-breast": "564e336ada753182ddc4eb33c990cc913840e77b43911e54ae35cb19a8606da3",
    "phantom-retina": "a4691b759bcbb121dd8e1a3c24d7eb1808e2766d586ee4444203622accb89283",
}


@pytest.mark.parametrize("name", NAMES)
def test_flat_sets_never_change(name: str) -> None:
    digest = hashlib.sha256()
    source = Phantoms(name)
    for sample in map(source.sample, range(24)):
        image = sample.image
        assert sample.label is not None
        words = [sample.key, sample.subject, sample.split, int(sample.organ), int(sample.task), int(image.modality)]
        words += [image.pixels.shape, image.pixels.dtype, image.spacing_mm, sample.label.tolist()]
        digest.update(" ".join(map(str, words)).encode() + image.pixels.tobytes())
    assert digest.hexdigest() == DIGESTS[name]


@pytest.mark.parametrize("name", NAMES)
def test_an_image_depends_on_seed_and_position_alone(name: str) -> None:
    straight = list(Phantoms(name, subjects=12))
    backwards = [Phantoms(name, subjects=99).sample(position) for position in reversed(range(len(straight)))]
    for one, other in zip(straight, reversed(backwards), strict=True):
        assert one.key == other.key and one.split == other.split and one.subject == other.subject
        assert (one.image.pixels == other.image.pixels).all() and (one.label == other.label).all()


@pytest.mark.parametrize("name", NAMES)
def test_another_seed_is_another_population(name: str) -> None:
    first, second = (list(Phantoms(name, subjects=10, seed=seed)) for seed in (0, 1))
    assert not {sample.image.pixels.tobytes() for sample in first} & {s.image.pixels.tobytes() for s in second}
    assert not {sample.subject for sample in first} & {sample.subject for sample in second}


@pytest.mark.parametrize("name, channels", [("phantom-chest", 1), ("phantom-breast", 1), ("phantom-retina", 3)])
@pytest.mark.parametrize("size", [16, 28, 65])
def test_images_are_uint8_of_the_size_asked_for(name: str, channels: int, size: int) -> None:
    for sample in Phantoms(name, subjects=6, size=size):
        assert sample.image.pixels.shape == (channels, size, size) and sample.image.pixels.dtype == np.uint8
        assert sample.image.pixels.std() > 10


@pytest.mark.parametrize("name", NAMES)
def test_a_subject_has_one_label_one_split_and_images_that_differ(name: str) -> None:
    samples = list(Phantoms(name, subjects=40, images_per_subject=3))
    for subject in {sample.subject for sample in samples}:
        own = [sample for sample in samples if sample.subject == subject]
        labels = {int(sample.label[0]) for sample in own if sample.label is not None}
        assert len(own) == 3 and len(labels) == 1 and len({sample.split for sample in own}) == 1
        assert len({sample.image.pixels.tobytes() for sample in own}) == 3


@pytest.mark.parametrize("name", NAMES)
def test_splits_and_classes_have_about_the_shares_of_the_recipe(name: str) -> None:
    source = Phantoms(name, subjects=4000, images_per_subject=1)
    splits = [source._population.split(subject) for subject in range(4000)]
    assert [round(splits.count(split) / 4000, 1) for split in ("train", "val", "test")] == [0.7, 0.1, 0.2]
    shares = dict(zip(FLAT[name].classes, FLAT[name].prevalence, strict=True))
    labels = np.array([source._population.label(subject, shares) for subject in range(4000)])
    assert np.bincount(labels) / 4000 == pytest.approx(np.array(FLAT[name].prevalence), abs=0.03)


@pytest.mark.parametrize("name, lowest, highest", [("phantom-chest", 0.6, 0.85), ("phantom-breast", 0.57, 0.85)])
def test_raw_pixels_say_something_of_the_label_but_not_all(name: str, lowest: float, highest: float) -> None:
    samples = list(Phantoms(name, subjects=700))
    pixels = np.stack([sample.image.pixels.ravel() for sample in samples]) / 255
    labels = np.array([sample.label[0] for sample in samples if sample.label is not None])
    train = np.array([sample.split == "train" for sample in samples])
    linear = LogisticRegression(C=0.01, max_iter=200).fit(pixels[train], labels[train])
    assert lowest < roc_auc_score(labels[~train], linear.predict_proba(pixels[~train])[:, 1]) < highest


def test_shards_of_phantoms_say_that_they_are_synthetic(tmp_path: Path) -> None:
    manifest = write_dataset(Phantoms("phantom-retina", subjects=20), tmp_path / "phantom-retina")
    assert not manifest.card.official and "synthetic" in manifest.card.note
    assert manifest.vocabulary["organ"] == {"retina": 8} and manifest.vocabulary["modality"] == {"fundus": 7}


def test_unknown_names_and_empty_populations_are_refused() -> None:
    with pytest.raises(DataError, match="unknown phantom set 'phantom-chst'; did you mean 'phantom-chest'"):
        Phantoms("phantom-chst")
    with pytest.raises(DataError, match="positive"):
        Phantoms("phantom-chest", subjects=0)
