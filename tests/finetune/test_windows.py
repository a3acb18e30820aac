"""Frozen networks on windows of larger images: what heads are given, what is kept, and what is saved."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from data_shards.support.errors import ConfigError
from data_shards.vocabulary import Modality, Organ, Task
from finetune.classifier.estimator import FewLabelClassifier
from finetune.fit.features import features_of, summaries
from finetune.fit.room import studies_at_once
from finetune.images import Study
from finetune.windows import windowed
from pretrain.backbone import normalise
from pretrain.metadata import Metadata
from pretrain.tiling import SlidingWindows
from tests.finetune.samples import blobs, plane, solid_blobs, tiny_backbone


@pytest.mark.parametrize("volumes", [False, True])
@torch.no_grad()
def test_a_head_is_given_what_windows_give(volumes: bool) -> None:
    cases = solid_blobs(4, depth=12) if volumes else blobs(4)
    window = (8, 12, 8) if volumes else 8
    network = tiny_backbone().eval()
    found = features_of(network, windowed(cases.shared(), window, 0.25), dense=True)

    known = Metadata.uniform(4, Organ.chest, Modality.xray, Task.self_supervised)
    images = normalise(torch.from_numpy(cases.images))
    expected = SlidingWindows(network, window, 0.25).features(images, known, dense=True)
    torch.testing.assert_close(found.embedding_BD, expected.embedding_BD, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.tokens_BTD, expected.tokens_BTD, atol=1e-5, rtol=0)
    assert found.grid == expected.grid
    whole = features_of(network, cases.shared(), dense=True)
    assert (whole.embedding_BD - found.embedding_BD).abs().max() > 1e-3
    covered = features_of(network, windowed(cases.shared(), 16, 0.5), dense=True)
    torch.testing.assert_close(covered.tokens_BTD, whole.tokens_BTD, atol=1e-5, rtol=0)


def test_features_of_windows_and_of_whole_images_are_kept_apart() -> None:
    cases, network = blobs(6).shared(), tiny_backbone()
    first = summaries(network, cases).embedding_ND
    cut = summaries(network, windowed(cases, 8, 0.5)).embedding_ND
    again = summaries(network, windowed(cases, [8], 0.5)).embedding_ND
    np.testing.assert_array_equal(cut, again)
    np.testing.assert_array_equal(first, summaries(network, cases).embedding_ND)
    assert np.abs(first - cut).max() > 1e-3
    assert windowed(cases, None, 0.5) is cases


def test_a_classifier_reads_windows_by_itself_and_so_does_the_one_that_was_saved(tmp_path: Path) -> None:
    cases = blobs(24)
    ways: list[tuple[int | list[int], dict]] = [(8, {}), ([8, 12], {"head_options": {"reads": "embedding"}})]
    for window, options in ways:
        model = FewLabelClassifier("medformer_nano", window=window, overlap=0.25, **options).fit(cases)
        by_hand = FewLabelClassifier("medformer_nano", **options).fit(windowed(cases, window, 0.25))
        expected = by_hand.predict_proba(windowed(cases, window, 0.25))
        np.testing.assert_allclose(model.predict_proba(cases), expected, atol=1e-5)
        assert np.abs(model.predict_proba(cases) - by_hand.predict_proba(cases)).max() > 1e-4
        model.save(tmp_path / str(window))
        again = FewLabelClassifier.load(tmp_path / str(window))
        np.testing.assert_allclose(again.predict_proba(cases), model.predict_proba(cases), atol=1e-6)


def test_the_size_of_a_volume_does_not_bound_how_it_is_read() -> None:
    """A volume that memory has no room for as a whole is one study at a time; small ones go together."""
    network = tiny_backbone().eval()
    large = Study({"image": plane(np.broadcast_to(np.uint8(0), (1, 600, 600, 600)))}, window=48)
    small = Study({"image": plane(np.zeros((1, 16, 16, 16), np.uint8))}, window=48)
    assert studies_at_once(network, large, dense=True) == 1
    assert studies_at_once(network, small, dense=True) == studies_at_once(
        network, replace(small, window=None), dense=True
    )


def test_windows_are_for_frozen_networks_and_multiples_of_the_stride() -> None:
    with pytest.raises(ConfigError, match="window is for a frozen network, and strategy full trains it"):
        FewLabelClassifier("medformer_nano", strategy="full", window=8).fit(blobs(8))
    with pytest.raises(ConfigError, match="window 6: a multiple of 4, the voxels of a token, is expected"):
        FewLabelClassifier("medformer_nano", window=6).fit(blobs(8))
    with pytest.raises(ConfigError, match=r"window \(8, 8, 8\): a number of voxels for each of the 2 axes"):
        FewLabelClassifier("medformer_nano", window=(8, 8, 8)).fit(blobs(8))
    with pytest.raises(ConfigError, match=r"overlap 1\.5: from 0 and below 1 is expected"):
        FewLabelClassifier("medformer_nano", window=8, overlap=1.5).fit(blobs(8))
