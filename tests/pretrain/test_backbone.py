"""The Perceiver IO backbone: what gets gradient, what does not matter, and closed forms of its parts."""

from __future__ import annotations

import math

import pytest
import timm
import torch
from torch import Tensor

from data_shards.vocabulary import Dimensionality, Modality, Organ, Task
from pretrain.backbone import Medformer, normalise
from pretrain.backbone.attention import Attention, CrossAttentionLayer
from pretrain.backbone.latents import Kind, LatentArray
from pretrain.backbone.position import REFERENCE_MM, FourierPosition, Grid
from pretrain.backbone.stems import channels_as
from pretrain.metadata import Metadata

SMALL = {"embed_dim": 32, "depth": 2, "num_heads": 2, "latents": 2}


def small(**changes: object) -> Medformer:
    torch.manual_seed(0)
    return timm.create_model("medformer_nano", **{**SMALL, **changes}).eval()


def images(rows: int = 3, channels: int = 3, height: int = 28, width: int = 28) -> Tensor:
    return torch.rand(rows, channels, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


def known(rows: int = 3) -> Metadata:
    return Metadata.uniform(rows, Organ.chest, Modality.xray, Task.binary)


def test_every_latent_and_query_is_a_registered_parameter() -> None:
    names = dict(small().named_parameters())
    assert names["query"].shape == (1, 32)
    assert names["latents.shared"].shape == (2, 32)
    for name, entries in (
        ("organ", Organ),
        ("modality", Modality),
        ("dimensionality", Dimensionality),
        ("task", Task),
    ):
        assert names[f"latents.collections.{name}"].shape == (len(entries), 2, 32)


@pytest.mark.parametrize("volumes", [False, True])
def test_a_latent_gets_gradient_when_and_only_when_its_entry_is_in_the_batch(volumes: bool) -> None:
    model = small()
    batch = images(3, 6, 28, 28)[:, None] if volumes else images()
    metadata = Metadata(torch.tensor([2, 2, 5]), torch.tensor([4, 0, 1]), torch.tensor([1, 1, 3]))
    features = model.features(batch, metadata, dense=True)
    # Not the plain sum: the layer norm at the end makes that a constant.
    weights = torch.randn(32, generator=torch.Generator().manual_seed(2))
    ((features.embedding_BD * weights).sum() + (features.tokens_BTD * weights).square().sum()).backward()
    present = {
        "latents.collections.organ": {2, 5},
        "latents.collections.modality": {0, 1, 4},
        "latents.collections.dimensionality": {int(Dimensionality.volumetric if volumes else Dimensionality.planar)},
        "latents.collections.task": {1, 3},
        "tags": {0, 1, 4},
    }
    for name, parameter in model.named_parameters():
        if name.endswith(("depth", "proj_depth")):  # what volumes alone use
            assert (parameter.grad is not None and bool(parameter.grad.any())) == volumes, name
            continue
        assert parameter.grad is not None, name
        if name in present:
            rows = parameter.grad.flatten(1).abs().sum(dim=1)
            assert set(torch.nonzero(rows).flatten().tolist()) == present[name], name
        else:
            assert parameter.grad.abs().sum() > 0, name
        if name.startswith("latents.collections."):
            latents = parameter.grad.abs().sum(dim=2)
            assert all((latents[entry] > 0).all() for entry in present[name]), name


def test_weights_from_before_an_entry_joined_the_vocabulary_load_with_the_row_of_unknown() -> None:
    old, new = LatentArray(2, 3, 4), LatentArray(2, 3, 4)
    weights = old.state_dict()
    weights["collections.task"] = weights["collections.task"][:-2]
    new.load_state_dict(weights, strict=True)
    rows = new.collections["task"]
    assert torch.equal(rows[:-2], old.collections["task"][:-2])
    assert torch.equal(rows[-2:], old.collections["task"][:1].expand(2, -1, -1))
    weights["collections.task"] = torch.zeros(len(rows) + 1, 3, 4)
    with pytest.raises(RuntimeError, match="size mismatch for collections.task"):
        new.load_state_dict(weights)


def test_order_of_the_context_does_not_matter() -> None:
    model = small().double()
    expected = model.features(images().double(), known()).embedding_BD
    order = torch.randperm(49, generator=torch.Generator().manual_seed(3))
    model.encoder.register_forward_pre_hook(lambda module, inputs: (inputs[0], inputs[1][:, order]))
    torch.testing.assert_close(model.features(images().double(), known()).embedding_BD, expected, atol=1e-12, rtol=0)


def test_an_image_alone_gives_what_it_gives_in_a_batch() -> None:
    model = small().double()
    metadata = Metadata(torch.tensor([2, 0, 5]), torch.tensor([4, 0, 1]), torch.tensor([1, 1, 3]))
    together = model.features(images().double(), metadata, dense=True)
    for row in range(3):
        own = Metadata(*(ids[row : row + 1] for ids in (metadata.organ_B, metadata.modality_B, metadata.task_B)))
        alone = model.features(images().double()[row : row + 1], own, dense=True)
        torch.testing.assert_close(alone.embedding_BD[0], together.embedding_BD[row], atol=1e-12, rtol=0)
        torch.testing.assert_close(alone.tokens_BTD[0], together.tokens_BTD[row], atol=1e-12, rtol=0)


@pytest.mark.parametrize("size, grid", [((28, 28), (7, 7)), ((20, 33), (5, 9)), ((1, 1), (1, 1)), ((64, 5), (16, 2))])
def test_any_size_is_accepted(size: tuple[int, int], grid: tuple[int, int]) -> None:
    features = small().features(images(2, 3, *size), dense=True)
    assert features.grid == grid
    assert features.tokens_BTD.shape == (2, grid[0] * grid[1], 32)
    assert features.embedding_BD.isfinite().all()


@pytest.mark.parametrize("canonical", [1, 3])
def test_a_grey_image_equals_itself_in_equal_colours(canonical: int) -> None:
    model = small(in_chans=canonical)
    grey = images(channels=1)
    expected = model.features(grey).embedding_BD
    for channels in (2, 3, 5):
        colours = grey.expand(-1, channels, -1, -1)
        torch.testing.assert_close(model.features(colours).embedding_BD, expected, atol=1e-5, rtol=0)


def test_every_channel_counts() -> None:
    model = small()
    for channels in (2, 5):
        batch = images(channels=channels)
        before = model.features(batch).embedding_BD
        for channel in range(channels):
            changed = batch.clone()
            changed[:, channel] = -changed[:, channel]
            assert not torch.allclose(model.features(changed).embedding_BD, before, atol=1e-6)


def test_folding_a_kernel_equals_repeating_the_image() -> None:
    weight = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(4))
    two = images(channels=2)
    repeated = two[:, torch.tensor([0, 1, 0])]
    torch.testing.assert_close(
        torch.nn.functional.conv2d(two, channels_as(weight, 2)), torch.nn.functional.conv2d(repeated, weight)
    )


@pytest.mark.parametrize(
    "shape",
    [(28, 28), (3, 28, 28), (1, 1, 3, 4, 28, 28), (0, 3, 28, 28), (2, 3, 0, 28), (2, 0, 8, 8), (2, 3, 0, 8, 8)],
)
def test_other_axes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="B,C,H,W or B,C,D,H,W"):
        small().features(torch.zeros(shape))


@pytest.mark.parametrize("arguments", [{"num_heads": 5}, {"stride": 3}, {"stride": 1}, {"global_pool": "max"}])
def test_arguments_that_do_not_fit_are_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=str(next(iter(arguments.values())))):
        small(**arguments)


def test_fourier_features_are_the_closed_form_in_the_reference_order() -> None:
    position = FourierPosition(axes=2, bands=3, max_frequency=5.0)
    coordinates = torch.tensor([[0.3, -0.7], [1.0, 0.0]])
    frequencies = (1.0, 3.0, 5.0)
    for found, point in zip(position(coordinates), coordinates.tolist(), strict=True):
        expected = list(point)
        expected += [math.sin(math.pi * f * x) for x in point for f in frequencies]
        expected += [math.cos(math.pi * f * x) for x in point for f in frequencies]
        torch.testing.assert_close(found, torch.tensor(expected), atol=1e-5, rtol=0)
    assert position.channels == 2 * (2 * 3 + 1) == len(expected)


def test_coordinates_are_where_the_tokens_look_in_row_major_order() -> None:
    expected = torch.tensor([[y, x] for y in (-0.5, 0.5) for x in (-0.75, -0.25, 0.25, 0.75)])
    patches = Grid(cells=(2, 4), voxels=(8, 16), stride=4, offset=1.5)
    torch.testing.assert_close(patches.coordinates(), expected)
    half = patches.coordinates((REFERENCE_MM / 16, REFERENCE_MM / 16))
    torch.testing.assert_close(half, expected * torch.tensor([0.5, 1.0]))
    each = patches.coordinates(torch.tensor([[math.nan, math.nan], [REFERENCE_MM / 16, REFERENCE_MM / 16]]))
    torch.testing.assert_close(each, torch.stack([expected, half]))


@pytest.mark.parametrize(
    "stem, stride", [("hmlp", 4), ("hmlp", 6), ("conv", 4), ("conv", 2), ("patch", 3), ("pixel", 1)]
)
def test_a_token_lies_in_the_middle_of_the_pixels_that_it_sees(stem: str, stride: int) -> None:
    model = small(stem=stem, stride=stride, in_chans=1)
    batch = images(1, 1, 29, 29).requires_grad_()
    features = model.adapter.stem(batch)
    grid = model.adapter(batch)[1]
    middle = features.shape[2] // 2
    # Not the plain sum, which a norm over the channels makes a constant.
    (features[0, :, middle, middle] * torch.randn(32, generator=torch.Generator().manual_seed(2))).sum().backward()
    seen = torch.nonzero(batch.grad[0, 0].abs().sum(dim=1)).flatten()
    token = grid.coordinates()[middle * grid.cells[1] + middle, 0].item()
    assert (seen.min() + seen.max()).item() / 2 == pytest.approx((token + 1) / 2 * 29 - 0.5, abs=1e-4)


def test_one_place_in_the_body_has_one_coordinate_at_any_spacing() -> None:
    coarse = Grid((7, 7), (28, 28), 4, 1.5).coordinates((2.0, 2.0)).unflatten(0, (7, 7))
    fine = Grid((14, 14), (56, 56), 4, 1.5).coordinates((1.0, 1.0)).unflatten(0, (7, 2, 7, 2))
    # The centre of a coarse patch is the mean of the four fine patches that it covers.
    torch.testing.assert_close(fine.mean(dim=(1, 3)), coarse)


@pytest.mark.parametrize("spacing", [(1.0,), (1.0, 1.0, 1.0), (0.0, 1.0), (math.nan, 1.0), (-1.0, 1.0)])
def test_a_spacing_that_is_none_is_refused(spacing: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="spacing_mm"):
        small().features(images(), spacing_mm=spacing)


def test_unknown_spacing_is_an_image_of_the_reference_extent() -> None:
    model = small()
    spacing = REFERENCE_MM / 28
    known_spacing = model.features(images(), spacing_mm=(spacing, spacing)).embedding_BD
    torch.testing.assert_close(known_spacing, model.features(images()).embedding_BD, atol=1e-5, rtol=0)
    assert not torch.allclose(model.features(images(), spacing_mm=(1.0, 1.0)).embedding_BD, known_spacing, atol=1e-5)


@pytest.mark.parametrize("crossed", [False, True])
def test_attention_is_the_softmax_formula(crossed: bool) -> None:
    torch.manual_seed(5)
    attention = Attention(8, 6 if crossed else None, heads=2, qk_dim=4).double()
    queries = torch.randn(2, 3, 8, dtype=torch.float64)
    context = torch.randn(2, 5, 6, dtype=torch.float64) if crossed else queries
    if crossed:
        q = attention.q(queries)
        k, v = attention.kv(context)[..., :4], attention.kv(context)[..., 4:]
    else:
        fused = attention.qkv(queries)
        q, k, v = fused[..., :4], fused[..., 4:8], fused[..., 8:]
    heads = []
    for head in range(2):
        qk, vs = slice(2 * head, 2 * head + 2), slice(4 * head, 4 * head + 4)
        scores = torch.einsum("bqe,bke->bqk", q[..., qk], k[..., qk]) / math.sqrt(2)
        weights = scores.exp() / scores.exp().sum(dim=-1, keepdim=True)
        heads.append(torch.einsum("bqk,bke->bqe", weights, v[..., vs]))
    expected = attention.proj(torch.cat(heads, dim=-1))
    torch.testing.assert_close(attention(queries, context if crossed else None), expected)


def test_masked_tokens_change_nothing() -> None:
    torch.manual_seed(6)
    layer = CrossAttentionLayer(8, 8, heads=2)
    queries, context = torch.randn(2, 3, 8), torch.randn(2, 5, 8)
    padded = torch.cat([context, 1e3 * torch.randn(2, 4, 8)], dim=1)
    mask = (torch.arange(9) < 5).expand(2, -1)
    torch.testing.assert_close(layer(queries, padded, mask), layer(queries, context), atol=1e-6, rtol=0)
    assert not torch.allclose(layer(queries, padded), layer(queries, context), atol=1e-3)


def test_normalise_maps_bytes_to_minus_one_and_one() -> None:
    torch.testing.assert_close(normalise(torch.tensor([0, 255], dtype=torch.uint8)), torch.tensor([-1.0, 1.0]))
    with pytest.raises(TypeError, match="uint8"):
        normalise(torch.zeros(1))


def test_without_collections_the_metadata_does_not_matter_and_no_parameter_is_empty() -> None:
    model = small(latents=3, latents_per_entry=0)
    assert all(parameter.numel() for parameter in model.parameters())
    told = model.latents(
        Metadata.uniform(2, Organ.chest), [Kind(torch.zeros(2, dtype=torch.int64), Dimensionality.planar)]
    )
    assert torch.equal(told, model.latents.shared.expand(2, -1, -1))
    for counts in ((0, 0), (-1, 2), (2, -1)):
        with pytest.raises(ValueError, match="at least one latent"):
            LatentArray(*counts, 8)
