"""Decoders on dense queries: where each value comes from, any size, and that they learn."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pretrain.backbone import Features
from pretrain.backbone.decoders import DenseDecoder, RestorationDecoder, SegmentationDecoder, dice_loss
from tests.pretrain.test_backbone import images, small


@pytest.mark.parametrize("grid", [(2, 3), (2, 1, 3)])
def test_each_voxel_comes_from_its_place_within_the_cell_that_holds_it(grid: tuple[int, ...]) -> None:
    axes, stride = len(grid), 2
    decoder = DenseDecoder(stride**axes, 1, stride, axes, hidden=1)
    torch.nn.init.eye_(decoder.unfold.weight)
    torch.nn.init.zeros_(decoder.unfold.bias)
    tokens = torch.randn(2, torch.Size(grid).numel(), stride**axes)
    voxels = decoder._unfolded(tokens, grid)
    cells = tokens.unflatten(1, grid).unflatten(-1, [stride] * axes)
    for place in itertools.product(*(range(length * stride) for length in grid)):
        cell = [p // stride for p in place] + [p % stride for p in place]
        assert torch.equal(voxels[(slice(None), 0, *place)], cells[(slice(None), *cell)])


@pytest.mark.parametrize("stem, stride", [("hmlp", 4), ("conv", 4), ("patch", 3), ("pixel", 1)])
@pytest.mark.parametrize("size", [(7, 10), (5, 9, 6)])
def test_images_of_any_size_come_back_in_their_size(size: tuple[int, ...], stem: str, stride: int) -> None:
    model = small(stem=stem, stride=stride)
    batch = torch.rand(2, 3, *size)
    features = model.features(batch, dense=True)
    segmentation = SegmentationDecoder(32, 4, stride, len(size))
    restoration = RestorationDecoder(32, 3, stride, len(size))
    assert segmentation(features, batch).shape == (2, 4, *size)
    assert restoration(features, batch).shape == batch.shape


def test_restoration_does_not_look_at_the_image_and_segmentation_does() -> None:
    model = small()
    features = model.features(images(), dense=True)
    other = -images()
    restoration, segmentation = RestorationDecoder(32, 3, 4, 2), SegmentationDecoder(32, 2, 4, 2)
    assert torch.equal(restoration(features, images()), restoration(features, other))
    assert not torch.allclose(segmentation(features, images()), segmentation(features, other))


def test_what_does_not_fit_is_refused() -> None:
    decoder = SegmentationDecoder(32, 2, 4, axes=2)
    with pytest.raises(ValueError, match="dense=True"):
        decoder(small().features(images()), images())
    with pytest.raises(ValueError, match="images of 3 axes, the decoder is for 2"):
        decoder(Features(torch.zeros(1, 32), torch.zeros(1, 8, 32), (2, 2, 2)), torch.zeros(1, 3, 8, 8, 8))
    for stride in (2, 8):
        with pytest.raises(ValueError, match=f"a decoder of stride {stride} needs"):
            SegmentationDecoder(32, 2, stride, axes=2)(small().features(images(), dense=True), images())
    with pytest.raises(ValueError, match="classes 1: at least two"):
        SegmentationDecoder(32, 1, 4, axes=2)
    with pytest.raises(ValueError, match="logits of 1 classes"):
        dice_loss(torch.zeros(1, 1, 8, 8), torch.zeros(1, 8, 8).long())
    with pytest.raises(ValueError, match="axes 4"):
        DenseDecoder(32, 2, 4, axes=4)


def balls(rows: int, axes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Bright balls on noise, and where they are."""
    generator = torch.Generator().manual_seed(seed)
    side = 24 if axes == 2 else 10
    centres = torch.rand(rows, axes, generator=generator) * side / 2 + side / 4
    places = torch.stack(torch.meshgrid(*[torch.arange(side)] * axes, indexing="ij"))
    distances = (places[None] - centres.view(rows, axes, *[1] * axes)).square().sum(dim=1).sqrt()
    labels = (distances < side / 5).long()
    noise = torch.randn(rows, 1, *[side] * axes, generator=generator) * 0.3
    return labels[:, None] * 0.8 - 0.4 + noise, labels


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.slow
def test_a_segmentation_is_learned_on_planes_and_volumes(axes: int) -> None:
    model = small(in_chans=1, stem_width=8).train()
    decoder = SegmentationDecoder(32, 2, 4, axes, in_chans=1, hidden=8)
    optimizer = torch.optim.AdamW([*model.parameters(), *decoder.parameters()], lr=3e-3)
    for step in range(60):
        batch, labels = balls(8, axes, seed=step)
        logits = decoder(model.features(batch, dense=True), batch)
        loss = F.cross_entropy(logits, labels) + dice_loss(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    batch, labels = balls(16, axes, seed=1000)
    found = decoder(model.eval().features(batch, dense=True), batch).argmax(dim=1)
    dice = 2 * (found * labels).sum() / (found + labels).sum()
    assert dice > 0.9


def test_dice_loss_is_the_closed_form() -> None:
    labels = torch.tensor([[[0, 1], [1, 1]]])
    certain = F.one_hot(labels, 3).movedim(-1, 1).float() * 1e4
    # Class 1 is found as it is, class 2 is nowhere and nothing is found.
    assert dice_loss(certain, labels).item() == pytest.approx(0, abs=1e-6)
    wrong = F.one_hot(torch.tensor([[[1, 0], [0, 0]]]), 3).movedim(-1, 1).float() * 1e4
    # Class 1: nothing in common, 1 found and 3 there: 1 - 1 / (4 + 1). Class 2: 0.
    assert dice_loss(wrong, labels).item() == pytest.approx((1 - 1 / 5) / 2)
