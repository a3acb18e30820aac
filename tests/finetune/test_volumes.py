"""Volumes are described and adapted to as planes are, by the same weights."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from data_shards.support.errors import DataError
from finetune.cases import Cases
from finetune.classifier.estimator import FewLabelClassifier
from finetune.fit import room
from finetune.fit.features import features_of, summaries
from finetune.fit.learners import ImageLearner
from finetune.fit.network import Network, Readout
from finetune.heads import create_head
from finetune.strategies import Rates, create_strategy
from finetune.study.representations import Frozen, RawPixels
from pretrain.backbone import normalise
from pretrain.bundle import save_bundle
from tests.finetune.samples import TINY, Reader, blobs, seeing_backbone, solid_blobs, studies_of, tiny_backbone

QUICK = {"max_steps": 60, "batch_size": 8, "learning_rate": 3e-3, "backbone_rate": 1e-3}
WAYS = [("linear", "frozen"), ("attention", "frozen"), ("linear", "full")]


def options_of(head: str, strategy: str, **options: object) -> dict:
    """Parameters of a way; a solved head takes no more than what it reads."""
    reads = {"head_options": {"reads": "mean_spread" if strategy == "frozen" else "embedding"}}
    return {"head": head, "strategy": strategy, "augmentation": False, **options, **(reads if head == "linear" else {})}


def test_spacing_that_is_partly_known_stays_so() -> None:
    images = solid_blobs(4)
    assert replace(images, spacing_mm=np.full((4, 3), math.nan)).spacing_mm is None
    partly = replace(images, spacing_mm=np.array([[2.0, 1.0, 1.0], *[[math.nan] * 3] * 3]))
    assert np.isnan(partly.spacing_mm[1:]).all() and partly.select(np.array([0])).spacing_mm.tolist() == [[2, 1, 1]]


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0), (1.0, 0.0, 1.0), (1.0, math.inf, 1.0), np.ones((3, 3))])
def test_spacing_that_is_none_is_refused(spacing_mm: object) -> None:
    images = solid_blobs(4)
    with pytest.raises(DataError, match="X: spacing_mm"):
        FewLabelClassifier(tiny_backbone()).fit(images.images, images.targets, spacing_mm=spacing_mm)


def test_volumes_are_embedded_as_by_the_network_itself_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, images = tiny_backbone(), solid_blobs(7, channels=2)
    spacing_mm = np.array([[3.0, 1.0, 1.0]] * 3 + [[math.nan] * 3] * 4, np.float32)
    with torch.no_grad():
        direct = backbone.eval().features(
            normalise(torch.from_numpy(images.images)), images.metadata, torch.from_numpy(spacing_mm), dense=True
        )
    for size in (256, 1, 2, 5):
        monkeypatch.setattr(room, "BATCH_VOXELS", size * images.images[0, 0].size)
        told = replace(images, spacing_mm=spacing_mm)
        np.testing.assert_allclose(summaries(backbone, told).embedding_ND, direct.embedding_BD.numpy(), atol=1e-5)
        tokens = features_of(backbone, told, dense=True).tokens
        torch.testing.assert_close(tokens, direct.tokens_BTD, atol=1e-5, rtol=0)
    unknown = summaries(backbone, images).embedding_ND
    np.testing.assert_allclose(unknown[3:], direct.embedding_BD[3:].numpy(), atol=1e-5)
    assert np.abs(unknown[:3] - direct.embedding_BD[:3].numpy()).max() > 1e-3


def test_raw_voxels_are_averaged_down_to_cubes() -> None:
    volumes = np.random.default_rng(0).integers(0, 256, (2, 1, 56, 28, 20), dtype=np.uint8)
    images = replace(blobs(2), images=volumes)
    expected = volumes.reshape(2, 28, 2, 28, 20).mean(axis=2) / 255
    np.testing.assert_allclose(RawPixels()(images), expected.reshape(2, -1), atol=1e-6)


@pytest.mark.parametrize(("head", "strategy"), WAYS)
@pytest.mark.slow
def test_volumes_are_told_apart_by_weights_of_planes_and_back(head: str, strategy: str) -> None:
    for given, test in ((solid_blobs(28, seed=1), solid_blobs(40, seed=2)), (blobs(28, seed=1), blobs(40, seed=2))):
        classifier = FewLabelClassifier(seeing_backbone(), **options_of(head, strategy, **QUICK))
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
        classifier = FewLabelClassifier(backbone, **options_of(head, strategy, max_steps=2))
        fits = [classifier.fit(cases).predict_proba(cases) for cases in (images, told)]
        assert not np.array_equal(*fits), (head, strategy)


@pytest.mark.parametrize(("head", "strategy"), WAYS)
def test_a_network_that_reads_at_one_spacing_adapts_to_images_of_several(head: str, strategy: str) -> None:
    images, backbone = solid_blobs(12, seed=1), tiny_backbone()
    backbone.voxel_mm = 2.0
    spacing_mm = np.full((12, 3), 2.0, dtype=np.float32)
    spacing_mm[::3] = 1.0
    classifier = FewLabelClassifier(backbone, **options_of(head, strategy, max_steps=2))
    classifier.fit(images.images, images.targets, spacing_mm=spacing_mm)
    found = classifier.predict_proba(images.images, spacing_mm)
    for rows in (slice(0, 12, 3), slice(1, 12, 3)):
        alone = classifier.predict_proba(images.images[rows], spacing_mm[rows])
        np.testing.assert_allclose(alone, found[rows], atol=1e-5)


@pytest.mark.parametrize("images", [blobs(5, seed=1), solid_blobs(5, seed=1)], ids=["planes", "volumes"])
def test_a_frozen_network_is_read_by_its_embedding_or_by_what_its_tokens_have_in_common(images: Cases) -> None:
    backbone = tiny_backbone().eval()
    told = replace(images, spacing_mm=np.full((5, images.images.ndim - 2), 2.0))
    with torch.no_grad():
        features = backbone.features(
            normalise(torch.from_numpy(told.images)), told.metadata, torch.from_numpy(told.spacing_mm), dense=True
        )
    mean_BD = features.tokens_BTD.mean(dim=1)
    spread_BD = torch.std(features.tokens_BTD, dim=1, correction=0)
    expected = {
        "embedding": features.embedding_BD,
        "mean": mean_BD,
        "mean_spread": torch.cat([mean_BD, spread_BD], 1),
        "embedding_mean_spread": torch.cat([features.embedding_BD, mean_BD, spread_BD], 1),
    }
    for reads, wanted in expected.items():
        np.testing.assert_allclose(Frozen("", backbone, reads)(told), wanted.numpy(), atol=1e-5)


def test_held_out_volumes_are_looked_at_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    images = replace(solid_blobs(9, seed=1), spacing_mm=np.linspace(1, 2, 27).reshape(9, 3))
    network = Network(tiny_backbone(), Readout(create_head("linear", 32, 1, {"reads": "mean_spread"}), None)).eval()

    def logits(rows: np.ndarray) -> torch.Tensor:
        rates = Rates(1e-3, 1e-3, 1.0, 0.0)
        learner = ImageLearner(network, images, create_strategy("full"), rates, augmented=True, seed=0)
        return learner.logits(rows, None)

    rows = np.array([8, 0, 3, 1, 5])
    with torch.no_grad():
        together = logits(rows)
        monkeypatch.setattr(room, "BATCH_VOXELS", 2 * images.images[0].size)
        sizes: list[int] = []
        network.backbone.encoder.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[1])))
        torch.testing.assert_close(logits(rows), together, atol=1e-5, rtol=1e-4)
    assert sizes == [2, 2, 1]


def test_a_training_step_depends_on_the_case_the_step_and_the_seed_alone() -> None:
    arrays = solid_blobs(6, seed=1)
    lazy = Reader(studies_of(arrays)).cases(arrays)
    network = Network(tiny_backbone(), Readout(create_head("linear", 32, 1, {"reads": "mean_spread"}), None)).eval()

    def logits(cases: Cases, rows: list[int], step: int, seed: int = 0) -> torch.Tensor:
        rates = Rates(1e-3, 1e-3, 1.0, 0.0)
        learner = ImageLearner(network, cases, create_strategy("full"), rates, augmented=True, seed=seed)
        with torch.no_grad():
            return learner.logits(np.array(rows), step)

    expected = logits(arrays, [0, 1, 2, 3, 4, 5], 3)
    torch.testing.assert_close(logits(lazy, [4, 2], 3), expected[[4, 2]], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(logits(arrays, [4, 2], 4), expected[[4, 2]], atol=1e-3)
    assert not torch.allclose(logits(arrays, [4, 2], 3, seed=1), expected[[4, 2]], atol=1e-3)
