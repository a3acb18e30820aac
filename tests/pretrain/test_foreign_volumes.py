"""The volumetric baselines: what they compute, written out in another way."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F

from data_shards.support.allocator import keep_freed_memory
from pretrain.foreign import create_foreign
from tests.pretrain.foreign_samples import RESNET

SMALL: dict[str, Any] = {"img_size": 28, "patch_size": 7, "embed_dim": 24, "depth": 2, "num_heads": 2}


@pytest.mark.parametrize(("name", "plane"), [("resnet18_3d", "resnet18"), ("resnet18_3d_cifar", "resnet18_cifar")])
def test_on_slices_that_are_all_alike_centred_kernels_give_the_planar_network(name: str, plane: str) -> None:
    torch.manual_seed(0)
    flat = timm.create_model(plane, num_classes=0, **RESNET).eval()
    solid = timm.create_model(name, num_classes=0, **RESNET).eval()
    state = {}
    for key, weight in flat.state_dict().items():
        if weight.ndim == 4:
            depth = torch.zeros(weight.shape[-1])
            depth[weight.shape[-1] // 2] = 1
            weight = weight[:, :, None] * depth[:, None, None]
        state[key] = weight
    solid.load_state_dict(state, strict=True)
    image = torch.randn(2, 3, 28, 28)
    with torch.no_grad():
        torch.testing.assert_close(
            solid(image[:, :, None].expand(-1, -1, 12, -1, -1)), flat(image), rtol=1e-5, atol=1e-5
        )


def test_as_many_weights_as_the_planar_network_has_with_cubes_for_squares() -> None:
    with torch.device("meta"):
        flat, solid = (timm.create_model(name, num_classes=0) for name in ("resnet18", "resnet18_3d"))
    cubes = {
        key: weight.numel() * (weight.shape[-1] if weight.ndim == 4 else 1) for key, weight in flat.named_parameters()
    }
    assert {key: weight.numel() for key, weight in solid.named_parameters()} == cubes


def test_a_transformer_of_cubes_is_a_linear_map_of_each_and_timms_blocks() -> None:
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_3d", num_classes=0, **SMALL).eval()
    volume = torch.randn(2, 3, 28, 28, 28)
    with torch.no_grad():
        cubes = volume.unflatten(4, (4, 7)).unflatten(3, (4, 7)).unflatten(2, (4, 7))
        rows = cubes.permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(2, 64, -1)
        tokens = rows @ model.patch_embed.proj.weight.flatten(1).T + model.patch_embed.proj.bias
        tokens = torch.cat([model.cls_token.expand(2, -1, -1), tokens], dim=1) + model.pos_embed
        expected = model.norm(model.blocks(tokens))
        torch.testing.assert_close(model.forward_features(volume), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(model(volume), expected[:, 0], rtol=1e-5, atol=1e-5)


def test_positions_of_another_size_are_resampled_and_edges_padded() -> None:
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_3d", num_classes=0, **SMALL).eval()
    with torch.no_grad():
        model.patch_embed.proj.weight.zero_()
        table = model.pos_embed[:, 1:].movedim(-1, 1).reshape(1, 24, 4, 4, 4)
        expected = F.interpolate(table, (2, 3, 5), mode="trilinear").flatten(2).movedim(1, -1)
        found = model._pos_embed(model.patch_embed(torch.zeros(1, 3, 14, 20, 29)))[:, 1:] - model.patch_embed.proj.bias
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "args", "grid"),
    [
        ("resnet18_3d", RESNET, (1, 1, 1)),
        ("resnet18_3d_cifar", RESNET, (4, 4, 4)),
        ("vit_tiny_3d", SMALL, (4, 4, 4)),
        ("vit_small_3d", {**SMALL, "embed_dim": 36}, (4, 4, 4)),
    ],
)
def test_both_are_backbones_of_volumes(name: str, args: dict[str, Any], grid: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    backbone = create_foreign(name, args).eval()
    volume = torch.rand(2, 1, 28, 28, 28) * 2 - 1
    with torch.no_grad():
        found = backbone.features(volume, dense=True)
        torch.testing.assert_close(found.embedding_BD, backbone.network(volume.expand(-1, 3, -1, -1, -1)))
    assert found.grid == grid and found.voxels == (28, 28, 28)
    assert found.tokens_BTD is not None and found.tokens_BTD.shape[1] == grid[0] ** 3
    assert backbone.features(volume[:, :, :, :, :17], dense=True).embedding_BD.isfinite().all()


def test_a_kernel_longer_than_the_volume_has_a_gradient_of_the_volume_alone() -> None:
    """Memory that is used again held infinities; six slices under a kernel of seven."""
    keep_freed_memory()
    layer = create_foreign("resnet18_3d", {}).network.conv1
    volumes = torch.randn(8, 3, 6, 16, 16)
    twin = torch.nn.Conv3d(3, 64, 7, 2, 3, bias=False, dtype=torch.float64)
    twin.weight.data.copy_(layer.weight)
    twin(volumes.double()).sum().backward()
    for _ in range(20):
        used = [torch.full((size,), float("inf")) for size in (10**2, 10**4, 10**5, layer.weight.numel(), 10**6)]
        del used
        layer.zero_grad()
        layer(volumes).sum().backward()
        torch.testing.assert_close(layer.weight.grad, twin.weight.grad.float(), atol=2e-3, rtol=1e-4)
