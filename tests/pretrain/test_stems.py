"""The default stem: what it sees, what it costs, and how it follows the size of the images."""

from __future__ import annotations

import math

import pytest
import timm
import torch
from torch import Tensor
from torch.nn import functional as F

from pretrain.backbone.flops import forward_cost
from pretrain.backbone.stems import HierarchicalStem, InflatedConv
from pretrain.backbone.visible import Visible, cells_of, patch_grid
from tests.pretrain.test_backbone import images, small
from tests.pretrain.test_volumes import trained_in_depth, volumes

SIZES = ["medformer_nano", "medformer_tiny", "medformer_small", "medformer_base", "medformer_large"]
BATCHES = {"planes": images(2, 3, 20, 29), "volumes": volumes(2, 1, 9, 12, 10)}


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize(
    "size, stride",
    [((28, 28), 4), ((64, 64), 8), ((224, 224), 8), ((28,) * 3, 4), ((64,) * 3, 8), ((96,) * 3, 8), ((512, 512), 16)],
)
def test_at_every_nominal_size_the_stem_costs_less_than_the_rest(name: str, size: tuple[int, ...], stride: int) -> None:
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=0, img_size=size)
    cost = forward_cost(model, size, channels=3 if len(size) == 2 else 1)
    assert model.stride == model.adapter.stem.stride == stride
    assert cost.tokens == math.prod(math.ceil(length / stride) for length in size)
    assert cost.stem < cost.total / 2


def test_a_stride_that_is_named_stays_whatever_the_size() -> None:
    assert small(img_size=224, stride=4).stride == 4
    assert small(img_size=(64, 64, 64), stride=4).stride == 4
    assert small(stem="pixel").stride == 1
    overlay = {"input_size": (1, 64, 64, 64)}
    assert timm.create_model("medformer_nano", num_classes=0, pretrained_cfg_overlay=overlay).stride == 8


@pytest.mark.parametrize("kind", BATCHES)
def test_patches_as_one_product_are_the_convolution(kind: str) -> None:
    batch = BATCHES[kind].double()
    conv = InflatedConv(batch.shape[1], 5, 3, 3).double()
    torch.nn.init.normal_(conv.depth)
    shown = batch.clone().requires_grad_()
    found = conv(shown)
    kernel = conv.kernel(batch.shape[1], batch.ndim - 2)
    expected = (F.conv2d if batch.ndim == 4 else F.conv3d)(conv.continued(shown), kernel, conv.bias, 3)
    torch.testing.assert_close(found, expected)
    leaves = [shown, conv.weight, conv.depth, conv.bias]
    weight = torch.randn(found.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    for first, second in zip(*(torch.autograd.grad(each, leaves, weight) for each in (found, expected)), strict=True):
        torch.testing.assert_close(first, second)


@pytest.mark.parametrize("kind", BATCHES)
def test_the_stem_is_its_closed_form(kind: str) -> None:
    """Each half cell by a linear map, norm and activation, the halves of a cell by another, cell by cell."""
    batch, torch_seed = BATCHES[kind], torch.manual_seed(0)
    del torch_seed
    stem = HierarchicalStem(batch.shape[1], 6, 4, width=3)
    for conv in (stem.first, stem.joined):
        torch.nn.init.normal_(conv.depth, std=0.1)
    axes = batch.ndim - 2
    found = stem(batch)
    padded = F.pad(batch, [end for size in reversed(batch.shape[2:]) for end in (0, -size % 4)], mode="replicate")
    kernels = [conv.kernel(conv.weight.shape[1], axes) for conv in (stem.first, stem.joined)]
    for cell in [(0,) * axes, tuple(length - 1 for length in found.shape[2:])]:
        joined = torch.zeros(2, 6) + stem.joined.bias
        for half in torch.cartesian_prod(*[torch.arange(2)] * axes).tolist():
            where = [slice(4 * c + 2 * h, 4 * c + 2 * h + 2) for c, h in zip(cell, half, strict=True)]
            seen = padded[(slice(None), slice(None), *where)]
            first = seen.flatten(1) @ kernels[0].flatten(1).T + stem.first.bias
            first = F.gelu(F.layer_norm(first, (3,)))
            joined = joined + first @ kernels[1][(slice(None), slice(None), *half)].T
        torch.testing.assert_close(
            found[(slice(None), slice(None), *cell)], F.layer_norm(joined, (6,)), atol=1e-5, rtol=0
        )


def tokens_by_patch(tokens_BTD: Tensor, visible: Visible, grid: object) -> Tensor:
    chosen_BT = cells_of(visible.patch_BP, grid, visible.cells)  # type: ignore[arg-type]
    return tokens_BTD.gather(1, chosen_BT[..., None].expand(-1, -1, tokens_BTD.shape[-1]))


@pytest.mark.parametrize("batch", [images(2, 3, 24, 32), volumes(2, 1, 8, 16, 24)])
def test_a_token_is_the_same_whether_its_neighbours_are_hidden_or_not(batch: Tensor) -> None:
    model = trained_in_depth(small())
    patches = math.prod(patch_grid(tuple(batch.shape[2:]), 8))
    order_BP = torch.stack([torch.randperm(patches, generator=torch.Generator().manual_seed(row)) for row in range(2)])
    visible = Visible(order_BP[:, : patches // 2], cells=2)
    whole, grid = model.adapter(batch)
    seen, _ = model.adapter(batch, visible=visible)
    torch.testing.assert_close(seen, tokens_by_patch(whole, visible, grid), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("width", [0, -1])
def test_a_width_that_cannot_be_is_refused(width: int) -> None:
    with pytest.raises(ValueError, match=f"stem_width {width}"):
        small(stem_width=width)
