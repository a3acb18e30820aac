"""Planes and volumes in one mixture: same voxels on any workers, known spacing, and no bit lost by a kill."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from data_shards.reading.reader import ShardedDataset
from data_shards.stream.batch import Batch
from data_shards.stream.sample_stream import SampleStream
from pretrain.config import PretrainConfig
from pretrain.spacing import as_spacing
from pretrain.view_factory import ViewFactory
from tests.pretrain.engine_ranks import trained_in_float64
from tests.pretrain.ranks import run_ranks
from tests.pretrain.runs import EVERY, STEPS, Run, assert_equal_bits, document, relative_difference, write_document
from tests.pretrain.test_backbone import small
from tests.pretrain.test_resume import assert_unbroken_record, kill
from tests.pretrain.test_view_factory import configuration, shown


def mixture(planes: Path, solids: Path, out: Path, **changes: Any) -> dict[str, Any]:
    datasets = [{"path": str(planes)}, {"path": str(solids)}]
    return document(planes, out, data={"datasets": datasets, "batch_size": 16}, **changes)


def first_batch(folder: Path) -> Batch:
    return next(iter(SampleStream([ShardedDataset(folder, "train")], batch_size=8, seed=0, prefetch=0)))


def test_a_batch_holds_planes_or_volumes_and_both_come(colour_shards: Path, solid_shards: Path) -> None:
    batches = shown(configuration(colour_shards, solid_shards), 1)
    assert {images[0].shape[1:] for _, images, _ in batches} == {(3, 28, 28), (1, 12, 12, 12)}


@pytest.mark.parametrize("world_size", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_workers_share_out_the_same_voxels(colour_shards: Path, solid_shards: Path, world_size: int) -> None:
    config = configuration(colour_shards, solid_shards)
    for one, many in zip(shown(config, 1), shown(config, world_size), strict=True):
        assert torch.equal(one[0], many[0])
        for view in range(2):
            assert torch.equal(one[1][view], many[1][view])


def test_both_views_are_read_with_the_spacing_of_their_image(solid_shards: Path) -> None:
    make_views = ViewFactory(configuration(solid_shards), torch.device("cpu"))
    backbone, batch = small(), first_batch(solid_shards)
    each = torch.rand(len(batch.sample_B), 3, generator=torch.Generator().manual_seed(0)) + 0.5
    each[2] = math.nan
    for spacing_mm_BA in (batch.spacing_mm_BA, each):
        assert spacing_mm_BA[0].isfinite().all()
        views = make_views(dataclasses.replace(batch, spacing_mm_BA=spacing_mm_BA))
        for images, metadata, found in zip(views.images, views.metadata, views.embeddings(backbone), strict=True):
            expected = backbone.features(images, metadata, spacing_mm_BA).embedding_BD
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
            unknown = backbone.features(images, metadata).embedding_BD
            assert not torch.allclose(found[:2], unknown[:2], atol=1e-4)


@pytest.mark.parametrize("known", [True, False])
def test_a_coarser_view_is_read_by_itself_with_its_own_spacing(solid_shards: Path, known: bool) -> None:
    content = document(solid_shards, Path("unused"), views={"coarser": [1.0, 1.5]})
    config = PretrainConfig.model_validate(content)
    backbone, batch = small(), first_batch(solid_shards)
    each = torch.rand(len(batch.sample_B), 3, generator=torch.Generator().manual_seed(0)) + 0.5 if known else None
    views = ViewFactory(config, torch.device("cpu"))(dataclasses.replace(batch, spacing_mm_BA=each))
    assert [tuple(images.shape[2:]) for images in views.images] == [(12, 12, 12), (8, 8, 8)]
    fine, coarse = views.embeddings(backbone)
    told = (None, None) if each is None else (each, each * 1.5)
    for found, images, metadata, spacing_mm in zip((fine, coarse), views.images, views.metadata, told, strict=True):
        torch.testing.assert_close(found, backbone.features(images, metadata, spacing_mm).embedding_BD)
    if known:
        unlike = backbone.features(views.images[1], views.metadata[1], each).embedding_BD
        assert not torch.allclose(coarse, unlike, atol=1e-3)


def test_a_slice_is_read_as_a_plane_with_the_spacing_of_its_rows_and_columns(solid_shards: Path) -> None:
    content = document(solid_shards, Path("unused"), views={"slices": [False, True]})
    backbone, batch = small(), first_batch(solid_shards)
    each = torch.rand(len(batch.sample_B), 3, generator=torch.Generator().manual_seed(0)) + 0.5
    views = ViewFactory(PretrainConfig.model_validate(content), torch.device("cpu"))(
        dataclasses.replace(batch, spacing_mm_BA=each)
    )
    assert [images.ndim for images in views.images] == [5, 4]
    told = zip(views.embeddings(backbone), views.images, views.metadata, (each, each[:, 1:]), strict=True)
    for found, images, metadata, spacing_mm in told:
        torch.testing.assert_close(found, backbone.features(images, metadata, spacing_mm).embedding_BD)


def test_the_backbone_is_told_nothing_of_images_whose_spacing_is_not_known(colour_shards: Path) -> None:
    batch = first_batch(colour_shards)
    assert batch.spacing_mm_BA.isnan().all()
    assert ViewFactory(configuration(colour_shards), torch.device("cpu"))(batch).spacing_mm == (None, None)


def test_the_short_form_of_a_spacing_says_the_same() -> None:
    nan = math.nan
    assert as_spacing(None) is None and as_spacing(torch.tensor([[nan, 0.0, -1.0], [math.inf, nan, 0.0]])) is None
    assert as_spacing(torch.tensor([[2.0, 1.0, 1.0]] * 3)) == (2.0, 1.0, 1.0)
    partly = as_spacing(torch.tensor([[2.0, 1.0, 0.0]] * 3))
    assert isinstance(partly, torch.Tensor) and partly[:, :2].tolist() == [[2.0, 1.0]] * 3
    assert partly[:, 2].isnan().all()
    different = torch.tensor([[2.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
    assert torch.equal(as_spacing(different), different)
    backbone, images = small(), torch.rand(2, 1, 5, 9, 12, generator=torch.Generator().manual_seed(1))
    rows = torch.tensor([[2.0, 1.0, 1.5]] * 2)
    found, expected = (backbone.features(images, None, spacing).embedding_BD for spacing in (as_spacing(rows), rows))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_two_ranks_in_float64_train_on_both_as_one(shards: Path, solid_shards: Path) -> None:
    config = PretrainConfig.model_validate(mixture(shards, solid_shards, Path("unused")))
    expected = trained_in_float64(0, 1, config, 8)
    for found in run_ranks(trained_in_float64, 2, config, 8):
        assert relative_difference(found, expected) < 1e-11
    depths = [value.abs().max() for name, value in expected.items() if name == "backbone.adapter.stem.first.depth"]
    assert depths[0] > 0, "volumes were among them"


@pytest.mark.slow
def test_killed_in_the_middle_of_a_mixture_it_ends_with_the_same_bits(
    shards: Path, solid_shards: Path, tmp_path: Path
) -> None:
    runs = []
    for name in ("whole", "killed"):
        folder = tmp_path / name
        folder.mkdir()
        content = mixture(shards, solid_shards, folder / "out")
        runs.append(Run(write_document(folder / "config.yaml", content), folder / "out"))
    whole, killed = runs
    whole.start().expect(0)
    for steps in (2, EVERY + 3):
        started = killed.start("--resume")
        started.wait_until(lambda least=steps: killed.steps_logged() >= least)
        kill(started)
    killed.start("--resume").expect(0)
    assert_unbroken_record(killed)
    assert_equal_bits(killed, whole)
    weights = killed.weights()
    assert killed.metrics()[-1]["step"] == STEPS
    assert weights["adapter.stem.first.depth"].abs().max() > 0 and weights["adapter.proj_depth"].abs().max() > 0
