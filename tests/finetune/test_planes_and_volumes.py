"""Volumes are read, described and adapted to as planes are, by the same weights."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from data_shards.sources.medmnist.source import MedMNIST
from data_shards.support.errors import DataError
from data_shards.writing.writer import write_dataset
from finetune.comparison import ARMS, RAW, compare
from finetune.estimator import FewLabelClassifier
from finetune.features import BATCH_VOXELS, embed, rows_at_once
from finetune.heads import create_head
from finetune.labelled import LabelledImages
from finetune.learners import ImageLearner, Network
from finetune.readers import read_labelled
from finetune.representations import Frozen, RawPixels, Reads
from finetune.subsets import Budget
from pretrain.backbone import normalise
from pretrain.bundle import save_bundle
from tests.finetune.samples import TINY, blobs, tiny_backbone

DRAWS = {"budgets": [Budget(per_class=4)], "seeds": [0, 1, 2]}
QUICK = {"max_steps": 60, "batch_size": 8, "learning_rate": 3e-3, "backbone_rate": 1e-3}
WAYS = [("linear", "frozen"), ("attention", "frozen"), ("linear", "full")]


def solid_blobs(count: int, *, seed: int = 0, channels: int = 1, depth: int = 6) -> LabelledImages:
    """Volumes whose slices between the first and the last show a bright square; its place tells the class."""
    planes = blobs(count, seed=seed)
    volumes = np.repeat(planes.images[:, :, None].repeat(channels, axis=1), depth, axis=2)
    volumes[:, :, [0, -1]] = np.random.default_rng(seed).integers(0, 90, volumes[:, :, :2].shape)
    return replace(planes, images=volumes)


def test_an_archive_and_shards_of_volumes_give_the_same_images_labels_and_spacing(
    shared_data: Path, tmp_path: Path
) -> None:
    archive = shared_data / "medmnist" / "adrenalmnist3d.npz"
    write_dataset(MedMNIST("adrenalmnist3d", file=archive), tmp_path / "shards")
    from_archive, from_shards = read_labelled(archive), read_labelled(tmp_path / "shards")
    assert {split: len(part) for split, part in from_archive.items()} == {"train": 1188, "val": 98, "test": 298}
    for split, part in from_archive.items():
        assert part.content_sha256() == from_shards[split].content_sha256()
        for found in (part.spacing_mm, from_shards[split].spacing_mm):
            np.testing.assert_array_equal(found, np.full((len(part), 3), 64 / 28, np.float32))
    with np.load(archive) as arrays:
        np.testing.assert_array_equal(from_archive["val"].images[:, 0], arrays["val_images"])


def test_unknown_spacing_stays_unknown(shared_data: Path) -> None:
    for part in read_labelled(shared_data / "medmnist" / "breastmnist.npz").values():
        assert part.spacing_mm is None
    images = solid_blobs(4)
    assert replace(images, spacing_mm=np.full((4, 3), math.nan)).spacing_mm is None
    partly = replace(images, spacing_mm=np.array([[2.0, 1.0, 1.0], *[[math.nan] * 3] * 3]))
    assert np.isnan(partly.spacing_mm[1:]).all() and partly.select(np.array([0])).spacing_mm.tolist() == [[2, 1, 1]]


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0), (1.0, 0.0, 1.0), (1.0, math.inf, 1.0), np.ones((3, 3))])
def test_spacing_that_is_none_is_refused(spacing_mm: object) -> None:
    images = solid_blobs(4)
    with pytest.raises(DataError, match="X: spacing_mm"):
        FewLabelClassifier(tiny_backbone()).fit(images.images, images.targets, spacing_mm=spacing_mm)


def test_volumes_are_embedded_as_by_the_network_itself_a_few_at_a_time() -> None:
    backbone, images = tiny_backbone(), solid_blobs(7, channels=2)
    spacing_mm = np.array([[3.0, 1.0, 1.0]] * 3 + [[math.nan] * 3] * 4, np.float32)
    with torch.no_grad():
        direct = backbone.eval().features(
            normalise(torch.from_numpy(images.images)), images.metadata, torch.from_numpy(spacing_mm), dense=True
        )
    for size in (None, 1, 2, 5):
        found = embed(backbone, images.images, images.metadata, size, spacing_mm=spacing_mm)
        np.testing.assert_allclose(found, direct.embedding_BD.numpy(), atol=1e-5)
    tokens = embed(backbone, images.images, images.metadata, spacing_mm=spacing_mm, reads="tokens")
    np.testing.assert_allclose(tokens, direct.tokens_BTD.numpy(), atol=1e-5)
    unknown = embed(backbone, images.images, images.metadata)
    np.testing.assert_allclose(unknown[3:], direct.embedding_BD[3:].numpy(), atol=1e-5)
    assert np.abs(unknown[:3] - direct.embedding_BD[:3].numpy()).max() > 1e-3


def test_no_more_voxels_than_fit_are_taken_at_a_time() -> None:
    assert rows_at_once((9, 1, 28, 28)) == rows_at_once((9, 3, 224, 224)) == 256
    assert rows_at_once((9, 1, 28, 28, 28)) == BATCH_VOXELS // 28**3
    assert rows_at_once((9, 1, 300, 300, 300)) == 1


def test_raw_voxels_are_averaged_down_to_cubes() -> None:
    volumes = np.random.default_rng(0).integers(0, 256, (2, 1, 56, 28, 20), dtype=np.uint8)
    images = replace(blobs(2), images=volumes)
    expected = volumes.reshape(2, 28, 2, 28, 20).mean(axis=2) / 255
    np.testing.assert_allclose(RawPixels()(images), expected.reshape(2, -1), atol=1e-6)


@pytest.mark.parametrize(("head", "strategy"), WAYS)
def test_volumes_are_told_apart_by_weights_of_planes_and_back(head: str, strategy: str) -> None:
    for given, test in ((solid_blobs(28, seed=1), solid_blobs(40, seed=2)), (blobs(28, seed=1), blobs(40, seed=2))):
        classifier = FewLabelClassifier(tiny_backbone(), head=head, strategy=strategy, augmentation=False, **QUICK)
        axes = given.images.ndim - 2
        classifier.fit(given.images, given.targets, spacing_mm=(2.0,) * axes)
        assert classifier.score(test.images, test.targets, (2.0,) * axes) > 0.8


def test_a_saved_classifier_predicts_volumes_with_the_same_bits(tmp_path: Path) -> None:
    bundle = save_bundle(tmp_path / "tiny", tiny_backbone(), "medformer_nano", TINY, {}, {})
    given, test = solid_blobs(16, seed=1, channels=2), solid_blobs(9, seed=2, channels=2)
    classifier = FewLabelClassifier(bundle, strategy="full", max_steps=3).fit(given.images, given.targets)
    classifier.save(tmp_path / "classifier")
    loaded = FewLabelClassifier.load(tmp_path / "classifier")
    for spacing_mm in (None, (3.0, 1.0, 1.0)):
        expected = classifier.predict_proba(test.images, spacing_mm)
        np.testing.assert_array_equal(loaded.predict_proba(test.images, spacing_mm), expected)


def test_spacing_reaches_the_network_whatever_is_made_of_it() -> None:
    images, backbone = solid_blobs(12, seed=1), tiny_backbone()
    told = replace(images, spacing_mm=np.full((12, 3), 1.0))
    assert not np.allclose(Frozen("", backbone)(told), Frozen("", backbone)(images), atol=1e-3)
    for head, strategy in WAYS:
        classifier = FewLabelClassifier(backbone, head=head, strategy=strategy, augmentation=False, max_steps=2)
        fits = [
            classifier.fit(images.images, images.targets, spacing_mm=spacing).predict_proba(images.images)
            for spacing in (None, (1.0, 1.0, 1.0))
        ]
        assert not np.array_equal(*fits), (head, strategy)


@pytest.mark.parametrize(("head", "strategy"), WAYS)
def test_a_network_that_reads_at_one_spacing_adapts_to_images_of_several(head: str, strategy: str) -> None:
    images, backbone = solid_blobs(12, seed=1), tiny_backbone()
    backbone.voxel_mm = 2.0
    spacing_mm = np.full((12, 3), 2.0, dtype=np.float32)
    spacing_mm[::3] = 1.0
    classifier = FewLabelClassifier(backbone, head=head, strategy=strategy, augmentation=False, max_steps=2)
    if head == "attention":
        with pytest.raises(DataError, match="choose a head that reads the embedding"):
            classifier.fit(images.images, images.targets, spacing_mm=spacing_mm)
        return
    found = classifier.fit(images.images, images.targets, spacing_mm=spacing_mm).predict_proba(
        images.images, spacing_mm
    )
    for rows in (slice(0, 12, 3), slice(1, 12, 3)):
        alone = classifier.predict_proba(images.images[rows], spacing_mm[rows])
        np.testing.assert_allclose(alone, found[rows], atol=1e-5)


@pytest.mark.parametrize("images", [blobs(5, seed=1), solid_blobs(5, seed=1)], ids=["planes", "volumes"])
def test_a_frozen_network_is_read_by_its_embedding_or_by_what_its_tokens_have_in_common(images: LabelledImages) -> None:
    backbone = tiny_backbone().eval()
    told = replace(images, spacing_mm=np.full((5, images.images.ndim - 2), 2.0))
    with torch.no_grad():
        features = backbone.features(
            normalise(torch.from_numpy(told.images)), told.metadata, torch.from_numpy(told.spacing_mm), dense=True
        )
    mean_BD = features.tokens_BTD.mean(dim=1)
    spread_BD = torch.std(features.tokens_BTD, dim=1, correction=0)
    expected = dict(
        zip(get_args(Reads), (features.embedding_BD, mean_BD, torch.cat([mean_BD, spread_BD], 1)), strict=True)
    )
    for reads, wanted in expected.items():
        np.testing.assert_allclose(Frozen("", backbone, reads)(told), wanted.numpy(), atol=1e-5)


def test_every_arm_of_a_comparison_takes_volumes(tmp_path: Path) -> None:
    splits = {name: solid_blobs(12, seed=seed) for seed, name in enumerate(("train", "test"))}
    told = {name: replace(part, spacing_mm=np.ones((12, 3))) for name, part in splits.items()}
    options = {"max_steps": 2}
    unknown, known = (
        list(compare(each, tiny_backbone(), tiny_backbone, folder=tmp_path, options=options, **DRAWS))
        for each in (splits, told)
    )
    assert [row.arm for row in known] == [*ARMS] * 3
    for one, other in zip(unknown, known, strict=True):
        assert one.index_sha256 == other.index_sha256
        assert (one.scores == other.scores and one.chosen == other.chosen) == (one.arm == RAW), one.arm


def test_held_out_volumes_are_looked_at_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    images = solid_blobs(9, seed=1)
    network = Network(tiny_backbone(), create_head("linear", 32, 1)).eval()
    options = {"rate": 1e-3, "backbone_rate": 1e-3, "layer_decay": 1.0, "weight_decay": 0.0, "augmented": True}
    spacing_mm = np.linspace(1, 2, 27, dtype=np.float32).reshape(9, 3)

    def logits(rows: np.ndarray) -> torch.Tensor:
        return ImageLearner(network, images.images, images.metadata, spacing_mm, seed=0, **options).logits(rows, None)

    rows = np.array([8, 0, 3, 1, 5])
    with torch.no_grad():
        together = logits(rows)
        monkeypatch.setattr("finetune.features.BATCH_VOXELS", 2 * images.images[0].size)
        sizes: list[int] = []
        network.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
        torch.testing.assert_close(logits(rows), together, atol=1e-5, rtol=1e-4)
    assert sizes == [2, 2, 1]


def test_a_table_names_volumes_and_refuses_to_mix_or_resize_them(tmp_path: Path) -> None:
    images = solid_blobs(8, seed=1)
    for index, volume in enumerate(images.images):
        np.save(tmp_path / f"{index}.npy", volume)
    table = tmp_path / "table.csv"
    table.write_text("file,label,split\n" + "".join(f"{i}.npy,{i % 2},train\n" for i in range(8)))
    train = read_labelled(tmp_path, csv=table)["train"]
    np.testing.assert_array_equal(train.images, images.images)
    assert train.spacing_mm is None
    with pytest.raises(DataError, match=r"row 2 of the table: found a volume of shape .* only planes can be resized"):
        read_labelled(tmp_path, csv=table, size=8)
    np.save(tmp_path / "5.npy", images.images[5, 0, 0])
    with pytest.raises(DataError, match=r"row 7 of the table has channels, height, width \(1, 16, 16\)"):
        read_labelled(tmp_path, csv=table)
