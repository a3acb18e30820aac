"""Planes and volumes are seen by one set of weights."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from data_shards.vocabulary import Dimensionality, Modality, Organ
from pretrain.backbone import Medformer
from pretrain.backbone.stems import ConvStem, HierarchicalStem, InflatedConv, PatchStem
from pretrain.bundle import load_bundle, save_bundle
from pretrain.metadata import Metadata
from tests.pretrain.test_backbone import SMALL, images, small

STEMS = [("hmlp", 4), ("conv", 4), ("patch", 4), ("pixel", 1)]


def volumes(rows: int = 2, channels: int = 1, *size: int) -> Tensor:
    return torch.rand(rows, channels, *(size or (9, 12, 10)), generator=torch.Generator().manual_seed(7)) * 2 - 1


def trained_in_depth(model: Medformer) -> Medformer:
    """With values in the weights that only volumes use, which start at zero."""
    generator = torch.Generator().manual_seed(8)
    for name, parameter in model.named_parameters():
        if name.endswith("depth"):
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


@pytest.mark.parametrize("stem, stride", STEMS)
@pytest.mark.parametrize("size", [(28, 28, 28), (5, 9, 12), (1, 1, 1), (3, 20, 7)])
def test_volumes_of_any_size_are_accepted(size: tuple[int, ...], stem: str, stride: int) -> None:
    if stem == "pixel" and size[0] == 28:
        size = (8, 8, 8)
    model = trained_in_depth(small(stem=stem, stride=stride))
    features = model.features(volumes(2, 1, *size), dense=True)
    assert features.grid == tuple(math.ceil(length / stride) for length in size)
    assert features.tokens_BTD.shape == (2, math.prod(features.grid), 32)
    assert features.tokens_BTD.isfinite().all()


@pytest.mark.parametrize("kernel, stride", [(3, 1), (3, 2), (2, 2), (4, 4), (1, 1)])
def test_a_volume_that_does_not_change_along_its_depth_gives_what_its_slice_gives(kernel: int, stride: int) -> None:
    torch.manual_seed(0)
    conv = InflatedConv(2, 5, kernel, stride)
    torch.nn.init.normal_(conv.depth)
    plane = torch.randn(3, 2, 11, 8)
    expected = conv(plane)[:, :, None]
    for depth in (1, 2, 7):
        found = conv(plane[:, :, None].expand(-1, -1, depth, -1, -1))
        assert found.shape[2] == math.ceil(depth / stride)
        torch.testing.assert_close(found, expected.expand_as(found), atol=1e-5, rtol=1e-5)


def test_the_inflated_convolution_is_a_convolution_of_the_continued_volume() -> None:
    torch.manual_seed(0)
    conv = InflatedConv(2, 3, 3, stride=2)
    torch.nn.init.normal_(conv.depth)
    volume = volumes(2, 2)
    depth = conv.depth.unflatten(-1, (3, 3))
    kernel = conv.weight[:, :, None] / 3 + depth - depth.mean(dim=2, keepdim=True)
    padded = torch.cat([volume[:, :, :1], volume, volume[:, :, -1:]], dim=2)
    padded = F.pad(padded, (1, 1, 1, 1))
    expected = torch.zeros(2, 3, 5, 6, 5)
    for d, h, w in torch.cartesian_prod(torch.arange(5), torch.arange(6), torch.arange(5)).tolist():
        window = padded[:, :, 2 * d : 2 * d + 3, 2 * h : 2 * h + 3, 2 * w : 2 * w + 3]
        expected[:, :, d, h, w] = torch.einsum("bcxyz,ocxyz->bo", window, kernel) + conv.bias
    torch.testing.assert_close(conv(volume), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "stem, weights, depth",
    [
        (ConvStem(1, 8), ["first.weight", "stages.2.weight"], 3),
        (HierarchicalStem(1, 8, 4), ["first.weight", "joined.weight"], 12),
    ],
)
def test_training_on_planes_and_on_volumes_that_do_not_change_is_the_same(
    stem: torch.nn.Module, weights: list[str], depth: int
) -> None:
    """The depth of a kernel takes nothing from the rate at which its plane learns."""
    stem = copy.deepcopy(stem).double()  # what the order of sums leaves is not what is asked
    plane = volumes(2, 1, 1, 12, 12).double()
    gradients = []
    for batch in (plane[:, :, 0], plane.expand(-1, -1, depth, -1, -1)):
        stem.zero_grad()
        stem(batch).flatten(2).mean(dim=2).square().sum().backward()
        gradients.append([stem.get_parameter(name).grad.clone() for name in weights])
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second, atol=1e-12, rtol=1e-9)


def test_a_volume_of_one_slice_gives_the_tokens_of_the_slice() -> None:
    model = trained_in_depth(small())
    slices = images(2, 1, 12, 10)
    tokens, _ = model.adapter(slices)
    found, grid = model.adapter(slices[:, :, None])
    assert grid.cells == (1, 3, 3)
    torch.testing.assert_close(found, tokens, atol=1e-5, rtol=1e-5)


def test_the_place_of_a_slice_counts() -> None:
    model = trained_in_depth(small())
    volume = volumes()
    before = model.features(volume).embedding_BD
    assert not torch.allclose(model.features(volume.flip(2)).embedding_BD, before, atol=1e-4)
    known = model.features(volume, spacing_mm=(3.0, 1.0, 1.0)).embedding_BD
    assert not torch.allclose(known, before, atol=1e-4)
    each = torch.tensor([[3.0, 1.0, 1.0], [math.nan] * 3])
    mixed = model.features(volume, spacing_mm=each).embedding_BD
    torch.testing.assert_close(mixed, torch.stack([known[0], before[1]]), atol=1e-5, rtol=1e-5)


def test_the_latents_know_planes_from_volumes() -> None:
    model = small()
    seen: list[Tensor] = []
    model.latents.register_forward_hook(lambda module, inputs, latents: seen.append(latents))
    model.features(images())
    model.features(volumes())
    rows = model.latents.collections["dimensionality"]
    place = slice(2 + 2 * 2, 2 + 3 * 2)  # after the shared latents, organ and modality
    assert torch.equal(seen[0][0, place], rows[Dimensionality.planar])
    assert torch.equal(seen[1][0, place], rows[Dimensionality.volumetric])


def smooth_volumes(rows: int, side: int, spacing: float) -> Tensor:
    """Sums of broad waves, sampled at the centres of voxels of so many mm within one box."""
    generator = torch.Generator().manual_seed(9)
    length = side * spacing
    places = (torch.arange(side) + 0.5) * spacing / length
    grid = torch.stack(torch.meshgrid(places, places, places, indexing="ij"))
    waves = torch.randint(1, 3, (rows, 6, 3), generator=generator).float()
    phases = torch.rand(rows, 6, 1, 1, 1, generator=generator) * 2 * math.pi
    return (2 * math.pi * torch.einsum("rka,axyz->rkxyz", waves, grid) + phases).sin().mean(dim=1, keepdim=True)


def test_a_resampled_volume_is_nearer_when_its_spacing_is_known() -> None:
    model = small(embed_dim=64, depth=4)
    fine, known, unknown = (
        model.features(smooth_volumes(6, side, spacing), spacing_mm=given).embedding_BD
        for side, spacing, given in ((48, 1.0, (1.0,) * 3), (24, 2.0, (2.0,) * 3), (24, 2.0, (1.0,) * 3))
    )
    assert ((fine - known).norm(dim=1) < (fine - unknown).norm(dim=1)).all()


@pytest.mark.parametrize("canonical, channels", [(3, 1), (1, 3)])
def test_a_bundle_of_planes_opens_on_volumes_and_back_with_other_channels(
    tmp_path: Path, canonical: int, channels: int
) -> None:
    model = small(in_chans=canonical)
    arguments = {**SMALL, "in_chans": canonical}
    folder = save_bundle(tmp_path / "bundle", model, "medformer_nano", arguments, {}, {})
    opened = load_bundle(folder).backbone
    metadata = Metadata.uniform(2, Organ.abdomen, Modality.ct)
    for batch in (volumes(2, channels), images(2, channels)):
        torch.testing.assert_close(opened.features(batch, metadata), model.features(batch, metadata))


def test_patches_of_a_plane_are_the_linear_map_of_each_patch() -> None:
    torch.manual_seed(0)
    stem = PatchStem(2, 5, 3)
    plane = torch.randn(2, 2, 7, 6)
    continued = torch.cat([plane, plane[:, :, -1:], plane[:, :, -1:]], dim=2)
    for row, column in ((0, 0), (1, 1), (2, 0)):
        patch = continued[:, :, 3 * row : 3 * row + 3, 3 * column : 3 * column + 3].flatten(1)
        expected = patch @ stem.first.weight.flatten(1).T + stem.first.bias
        torch.testing.assert_close(stem(plane)[:, :, row, column], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "arguments",
    [{"stem": "pixel", "stride": 4}, {"stem": "patch", "stride": 0}, {"stem": "mlp"}, {"stem": "hmlp", "stride": 5}],
)
def test_stems_that_do_not_exist_are_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(
        ValueError, match="stride 4 with stem 'pixel'|stride 0 of the patches|stem 'mlp'|stride 5 of the stem 'hmlp'"
    ):
        small(**arguments)


@pytest.mark.parametrize("stem, stride", STEMS)
def test_the_layout_of_images_and_weights_in_memory_does_not_matter(stem: str, stride: int) -> None:
    model = trained_in_depth(small(stem=stem, stride=stride)).double()
    for batch, layout in ((images(), torch.channels_last), (volumes(2, 3, 6, 8, 9), torch.channels_last_3d)):
        expected = model.features(batch.double(), dense=True)
        found = model.to(memory_format=torch.channels_last).features(
            batch.double().contiguous(memory_format=layout), dense=True
        )
        torch.testing.assert_close(found.embedding_BD, expected.embedding_BD, atol=1e-10, rtol=0)
        torch.testing.assert_close(found.tokens_BTD, expected.tokens_BTD, atol=1e-10, rtol=0)
