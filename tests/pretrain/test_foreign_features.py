"""A model of timm under our contract gives what timm's own gives, and says how it read images that do not fit it."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from data_shards.support.errors import ConfigError
from pretrain.backbone import StudyImage
from pretrain.foreign import create_foreign
from tests.pretrain.foreign_samples import FAMILIES, RESNET, VIT, in_own_range, made, stock

TOLERANCE = {"rtol": 1e-6, "atol": 1e-6}


def images(side: int = 28, channels: int = 3, count: int = 3) -> torch.Tensor:
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize(
    ("family", "side"),
    [
        pytest.param(family, side, marks=[pytest.mark.slow] if (family, side) == ("efficientnet", 64) else [])
        for family in FAMILIES
        for side in (28, 64)
    ],
)
def test_features_are_those_of_timms_own_forward(family: str, side: int) -> None:
    backbone = made(family).double()
    model = stock(backbone).double()
    batch = images(side).double()
    with torch.no_grad():
        found = backbone.features(batch, dense=True)
        assert found.voxels is not None and found.tokens_BTD is not None
        read = F.interpolate(batch, found.voxels, mode="bilinear", antialias=True)
        shown = in_own_range(read if found.voxels != (side, side) else batch, model)
        torch.testing.assert_close(found.embedding_BD, model(shown), **TOLERANCE)
        map_BDHW = model.forward_intermediates(shown, indices=1, norm=True, intermediates_only=True)[0]
        if family == "efficientnet":  # its last convolution comes after what timm calls its intermediates
            map_BDHW = model.forward_features(shown)
    assert found.embedding_BD.std(dim=0).max() > 1e-4, "images are told apart"
    assert found.grid == tuple(map_BDHW.shape[2:])
    torch.testing.assert_close(found.tokens_BTD, map_BDHW.flatten(2).transpose(1, 2), **TOLERANCE)
    assert found.embedding_BD.shape[1] == found.tokens_BTD.shape[2] == backbone.embed_dim


def test_sizes_are_read_as_they_are_where_the_network_takes_them() -> None:
    read = {family: made(family).features(images()).voxels for family in FAMILIES}
    assert read == {
        "resnet": (28, 28),
        "vit": (28, 28),
        "convnext": (32, 32),  # its convolutions without padding leave nothing of 28 pixels
        "efficientnet": (28, 28),
        "swin": (28, 28),
    }
    assert made("swin").features(images(64)).voxels == (28, 28), "it insists on its own size"
    assert made("vit").features(images(64)).voxels == (64, 64)


def test_a_transformer_reads_any_size_with_its_positions_resampled() -> None:
    backbone = made("vit")
    model = stock(backbone)
    with torch.no_grad():
        found = backbone.features(images(28)[..., :23], dense=True)
        padded = F.pad(in_own_range(images(28)[..., :23], model), (0, 5))
        torch.testing.assert_close(found.embedding_BD, model(padded), **TOLERANCE)
    assert found.grid == (4, 4) and found.tokens_BTD is not None and found.tokens_BTD.shape[1] == 16
    fixed = made("vit", dynamic_img_size=False)
    assert fixed.features(images(64)).voxels == (28, 28), "as was asked for"


def test_grey_images_are_what_timms_conversion_to_one_channel_gives(tmp_path: Any) -> None:
    backbone = made("vit")  # its means and deviations are alike
    save_file(backbone.network.state_dict(), tmp_path / "weights.safetensors")
    overlay = {"file": str(tmp_path / "weights.safetensors"), "num_classes": 0}
    grey = timm.create_model(
        "vit_tiny_patch16_224", pretrained=True, pretrained_cfg_overlay=overlay, num_classes=0, in_chans=1, **VIT
    ).eval()
    with torch.no_grad():
        found = backbone.features(images(channels=1)).embedding_BD
        torch.testing.assert_close(found, grey(images(channels=1)), **TOLERANCE)
        converted = create_foreign("vit_tiny_patch16_224", {**VIT, "in_chans": 1}, tmp_path / "weights.safetensors")
        torch.testing.assert_close(converted.eval().features(images(channels=1)).embedding_BD, found, **TOLERANCE)
    with pytest.raises(ConfigError, match="reads 1 channels, the images have 3; set in_chans=3"):
        converted.features(images())


def test_metadata_and_spacing_change_nothing() -> None:
    from pretrain.metadata import Metadata

    backbone = made("resnet")
    told = Metadata(torch.tensor([1, 2, 3]), torch.tensor([1, 2, 3]), torch.tensor([1, 1, 1]))
    with torch.no_grad():
        plain = backbone.features(images())
        spoken = backbone.features(images(), told, (0.5, 2.0))
    assert torch.equal(plain.embedding_BD, spoken.embedding_BD)


def test_a_study_is_the_mean_of_the_images_that_are_there() -> None:
    backbone = made("resnet")
    first, second = images(28), images(40)
    there = torch.tensor([True, False, True])
    with torch.no_grad():
        found = backbone.study([StudyImage(first), StudyImage(second, present_B=there)], dense=True)
        alone = [backbone.features(each).embedding_BD for each in (first, second)]
    torch.testing.assert_close(found.embedding_BD[1], alone[0][1])
    torch.testing.assert_close(found.embedding_BD[[0, 2]], (alone[0] + alone[1])[[0, 2]] / 2)
    assert [tokens.shape[1] for tokens in found.tokens] == [1, 4] and found.grids == ((1, 1), (2, 2))


def test_a_head_of_another_width_is_left_out() -> None:
    torch.manual_seed(0)
    backbone = create_foreign("mobilenetv3_small_050", {}).eval()
    with torch.no_grad():
        found = backbone.features(images(64), dense=True)
    assert found.tokens_BTD is not None and found.grid == (2, 2)
    torch.testing.assert_close(found.embedding_BD, found.tokens_BTD.mean(dim=1))
    assert backbone.network.head_hidden_size != backbone.embed_dim == found.tokens_BTD.shape[2]


def test_planar_networks_refuse_volumes_and_name_those_that_read_them() -> None:
    volume = torch.zeros(2, 1, 8, 8, 8)
    with pytest.raises(
        ConfigError, match="resnet18 reads planes, the images are 8x8x8; resnet18_3d.*read their slices"
    ):
        made("resnet").features(volume)
    with pytest.raises(ConfigError, match="vit_tiny_3d reads volumes, the images are 8x8"):
        create_foreign("vit_tiny_3d", {"img_size": 8, "patch_size": 4, "depth": 1}).features(volume[:, :, 0])


def test_one_image_of_one_cell_cannot_be_normalised_by_its_batch() -> None:
    backbone = made("resnet").train()
    with pytest.raises(ConfigError, match="needs more than one image"):
        backbone.features(images(count=1))
    assert backbone.features(images(side=64, count=1)).embedding_BD.isfinite().all()


def test_no_copy_of_the_network_hides_in_it() -> None:
    backbone = made("resnet")
    model = timm.create_model("resnet18", num_classes=0, **RESNET)
    assert sum(each.numel() for each in backbone.parameters()) == sum(each.numel() for each in model.parameters())
    assert set(backbone.state_dict()) == {f"model.{name}" for name in model.state_dict()}
