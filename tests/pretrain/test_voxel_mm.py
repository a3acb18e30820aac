"""A network that reads every image at one distance of voxels."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import timm
import torch
from timm.models import save_for_hf
from torch import Tensor
from torch.nn import functional as F

from data_shards.vocabulary import Modality, Organ
from pretrain.backbone import Medformer, StudyImage
from pretrain.backbone.decoders import SegmentationDecoder
from pretrain.backbone.export import export_program
from pretrain.bundle import load_bundle, save_bundle
from pretrain.metadata import Metadata
from tests.pretrain.test_backbone import SMALL, small
from tests.pretrain.test_volumes import trained_in_depth, volumes

NAN = math.nan


def pair(voxel_mm: float = 1.0) -> tuple[Medformer, Medformer]:
    """The same weights, reading at ``voxel_mm`` and reading images as they are."""
    reads, as_it_is = trained_in_depth(small(voxel_mm=voxel_mm)), trained_in_depth(small())
    as_it_is.load_state_dict(reads.state_dict())
    return reads.eval(), as_it_is.eval()


def embedding(model: Medformer, images: Tensor, spacing_mm: object) -> Tensor:
    return model.features(images, None, spacing_mm).embedding_BD


@pytest.mark.parametrize("size", [(8, 10, 9), (10, 9)])
def test_images_are_read_as_if_they_had_been_resampled_before(size: tuple[int, ...]) -> None:
    reads, as_it_is = pair()
    images, axes = torch.rand(2, 1, *size), len(size)
    mode = "bilinear" if axes == 2 else "trilinear"
    finer = F.interpolate(images, scale_factor=2.0, mode=mode)
    twice = images
    for axis in range(2, images.ndim):
        twice = twice.repeat_interleave(2, dim=axis)
    for given, spacing, expected in ((images, 2.0, finer), (twice, 0.5, images)):
        found = embedding(reads, given, (spacing,) * axes)
        torch.testing.assert_close(found, embedding(as_it_is, expected, (1.0,) * axes), atol=1e-6, rtol=1e-5)
    assert torch.equal(embedding(reads, images, (1.0,) * axes), embedding(as_it_is, images, (1.0,) * axes))
    assert torch.equal(embedding(reads, images, None), embedding(as_it_is, images, None))


def test_each_axis_is_brought_to_the_spacing_by_itself_and_the_extent_stays() -> None:
    reads, as_it_is = pair(voxel_mm=1.5)
    images = volumes(1, 1, 6, 16, 10)  # 18, 12 and 10.5 mm: 12, 8 and 7 voxels of 1.5 mm
    expected = F.interpolate(F.interpolate(images, size=(6, 8, 7), mode="area"), size=(12, 8, 7), mode="trilinear")
    found = reads.features(images, None, (3.0, 0.75, 1.05), dense=True)
    assert (found.voxels, found.grid) == ((12, 8, 7), (3, 2, 2))
    torch.testing.assert_close(found.embedding_BD, embedding(as_it_is, expected, (1.5, 1.5, 1.5)), atol=1e-6, rtol=1e-5)


def test_images_of_different_spacings_are_each_read_as_if_alone() -> None:
    reads, _ = pair()
    images = volumes(5, 1, 6, 8, 7)
    spacing_BA = torch.tensor([[2, 2, 2], [1, 1, 1], [2, 2, 2], [NAN, 1, 3], [1, 2, 1]])
    known = Metadata.uniform(5, Organ.brain, Modality.mri)
    known.organ_B[3] = int(Organ.chest)
    found = reads.features(images, known, spacing_BA).embedding_BD
    for row in range(5):
        one = Metadata(known.organ_B[row, None], known.modality_B[row, None], known.task_B[row, None])
        alone = reads.features(images[row, None], one, spacing_BA[row, None]).embedding_BD
        torch.testing.assert_close(found[row, None], alone, atol=2e-6, rtol=1e-5)


def test_spacings_that_give_one_size_go_together_with_their_own_places() -> None:
    reads, _ = pair()
    images = volumes(2, 1, 6, 8, 7)
    nearly = torch.tensor([[2.0, 2.0, 2.0], [2.02, 1.99, 2.0]])
    together = reads.features(images, None, nearly, dense=True)
    assert together.voxels == (12, 16, 14)
    for row in range(2):
        alone = reads.features(images[row, None], None, tuple(nearly[row].tolist()), dense=True)
        torch.testing.assert_close(together.tokens_BTD[row], alone.tokens_BTD[0], atol=2e-6, rtol=1e-5)
    with pytest.raises(ValueError, match=r"different sizes at voxel_mm 1.0, such as \(12, 16, 14\) and \(6, 8, 7\)"):
        reads.features(images, None, torch.tensor([[2.0] * 3, [1.0] * 3]), dense=True)


def test_images_of_a_study_each_have_their_own_spacing_and_may_be_missing() -> None:
    reads, _ = pair()
    mri = StudyImage(volumes(3, 1, 6, 8, 7), None, torch.tensor([[2.0] * 3, [1.0] * 3, [2.0] * 3]))
    pet = StudyImage(volumes(3, 1, 4, 4, 4), None, (4.0, 4.0, 4.0), torch.tensor([True, True, False]))
    found = reads.study([mri, pet]).embedding_BD
    for row in range(3):
        one = [StudyImage(mri.images[row, None], None, mri.spacing_mm[row, None])]
        if row < 2:
            one.append(StudyImage(pet.images[row, None], None, pet.spacing_mm))
        torch.testing.assert_close(found[row, None], reads.study(one).embedding_BD, atol=2e-6, rtol=1e-5)


def test_gradients_reach_every_weight_when_sizes_differ() -> None:
    model = small(voxel_mm=1.0).train()
    spacing_BA = torch.tensor([[2.0] * 3, [1.0] * 3])
    model.features(volumes(2, 1, 6, 8, 7), None, spacing_BA).embedding_BD.square().sum().backward()
    assert model.adapter.stem.first.weight.grad.abs().sum() > 0
    assert all(parameter.grad is not None for name, parameter in model.named_parameters() if "head" not in name)


@pytest.mark.parametrize("size", [(7, 10), (5, 9, 6)])
def test_a_segmentation_comes_back_in_the_size_of_the_image(size: tuple[int, ...]) -> None:
    reads, as_it_is = pair()
    decoder, images, spacing_mm = SegmentationDecoder(32, 4, 4, len(size)), torch.rand(1, 3, *size), (2.3,) * len(size)
    assert decoder(reads.features(images, None, spacing_mm, dense=True), images).shape == (1, 4, *size)
    same = (1.0,) * len(size)
    found, expected = (decoder(model.features(images, None, same, dense=True), images) for model in (reads, as_it_is))
    assert torch.equal(found, expected)


@pytest.mark.parametrize("wrong", [0, -1.0, NAN, math.inf, "two", (2.0, 2.0, 2.0)])
def test_what_is_no_length_is_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match="voxel_mm"):
        small(voxel_mm=wrong)


@pytest.mark.parametrize(
    "spacing_mm, message",
    [
        (2.0, "a length for each of the 3 axes"),
        ((1.0, 1.0), "has 2 numbers, images of 3 axes need 3"),
        ((1.0, 1.0, -1.0), "lengths above 0"),
        ((1.0, 1.0, math.inf), "lengths above 0"),
        (torch.ones(2, 2), "images of 3 axes need B,3"),
        (torch.ones(3, 3), "the batch has 2 images"),
        (torch.full((2, 3), math.inf), "what is no length"),
    ],
)
def test_wrong_spacings_are_refused_as_without_it(spacing_mm: object, message: str) -> None:
    for model in pair():
        with pytest.raises(ValueError, match=message):
            model.features(volumes(2), None, spacing_mm)


def test_what_is_set_afterwards_is_checked_and_goes_with_what_is_saved(tmp_path: Path) -> None:
    backbone = small()
    for wrong in (0, -1.0, math.inf, "2"):
        with pytest.raises(ValueError, match=f"voxel_mm {wrong}: a length above 0"):
            backbone.voxel_mm = wrong
    backbone.voxel_mm = 2.0
    save_for_hf(backbone, str(tmp_path / "timm"), safe_serialization=True)
    assert timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True).voxel_mm == 2.0
    save_bundle(tmp_path / "bundle", backbone, "medformer_nano", SMALL, {}, {})
    assert load_bundle(tmp_path / "bundle").backbone.voxel_mm == 2.0
    backbone.voxel_mm = None
    save_bundle(tmp_path / "bundle", backbone, "medformer_nano", {**SMALL, "voxel_mm": 2.0}, {}, {})
    assert load_bundle(tmp_path / "bundle").backbone.voxel_mm is None


@pytest.mark.parametrize("dense", [False, True])
def test_the_spacing_of_an_image_that_a_subject_lacks_does_not_matter(dense: bool) -> None:
    reads, _ = pair()
    present, images = torch.tensor([True, False]), volumes(2, 1, 6, 8, 7)
    found = []
    for lacking in (2.0, NAN, 7.0):
        spacing_BA = torch.tensor([[2.0] * 3, [lacking] * 3])
        found.append(reads.study([StudyImage(images, None, spacing_BA, present)], dense=dense).embedding_BD)
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(found[0], found[2])


@pytest.mark.parametrize("spacing_mm", [(5e6,) * 3, (5e-4,) * 3])
def test_lengths_that_cannot_be_in_mm_are_refused(spacing_mm: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="are the lengths in mm"):
        pair()[0].features(volumes(1, 1, 6, 8, 7), None, spacing_mm)


def test_it_goes_with_a_bundle(tmp_path: Path) -> None:
    model = small(voxel_mm=2.0)
    save_bundle(tmp_path / "bundle", model, "medformer_nano", {**SMALL, "voxel_mm": 2.0}, {}, {})
    assert load_bundle(tmp_path / "bundle").backbone.voxel_mm == 2.0


@pytest.mark.slow
def test_a_compiled_network_gives_the_same_and_a_graph_takes_images_without_spacing() -> None:
    reads, _ = pair()
    images = volumes(2, 3, 16, 20, 18)
    compiled = torch.compile(reads.features, fullgraph=True)
    with torch.no_grad():
        found = compiled(images, None, (0.5, 0.5, 0.5)).embedding_BD
        torch.testing.assert_close(found, embedding(reads, images, (0.5, 0.5, 0.5)), atol=1e-5, rtol=1e-4)
        unknown = torch.zeros(2, dtype=torch.int64)
        program = export_program(reads, axes=3)
        (exported,) = program.module()(images, unknown, unknown, unknown)
        torch.testing.assert_close(exported, embedding(reads, images, None), atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="a graph cannot choose the size"):
        export_program(reads, axes=3, spacing=True)
