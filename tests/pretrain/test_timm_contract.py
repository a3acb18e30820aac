"""What timm and those who use it expect of a model."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from timm.models import group_parameters

import pretrain.backbone  # noqa: F401  (registers the sizes)
from pretrain.bundle import save_bundle
from tests.pretrain.test_backbone import SMALL, images, known, small


@pytest.mark.parametrize("name, width", [("medformer_nano", 128), ("medformer_tiny", 192), ("medformer_small", 384)])
def test_sizes_are_made_by_name(name: str, width: int) -> None:
    assert timm.is_model(name)
    model = timm.create_model(name, num_classes=5, in_chans=1).eval()
    assert model.num_features == model.embed_dim == width
    assert model.pretrained_cfg["first_conv"] in {key.rpartition(".")[0] for key in model.state_dict()}
    assert model(images(1, 1)).shape == (1, 5)
    assert timm.data.resolve_data_config({}, model=model)["mean"] == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("pool", ["token", "avg"])
def test_forward_is_features_then_head(pool: str) -> None:
    model = small(num_classes=4, global_pool=pool)
    tokens = model.forward_features(images(), known())
    assert tokens.shape == (3, model.num_prefix_tokens + 49, 32)
    torch.testing.assert_close(model.forward_head(tokens), model(images(), known()), atol=1e-6, rtol=0)
    pooled = model.forward_head(tokens, pre_logits=True)
    torch.testing.assert_close(model.get_classifier()(pooled), model(images(), known()), atol=1e-6, rtol=0)


def test_classifier_is_replaced_and_removed() -> None:
    model = small(num_classes=4)
    model.reset_classifier(7, "avg")
    assert model(images()).shape == (3, 7) and model.num_classes == 7 and model.global_pool == "avg"
    model.reset_classifier(0)
    assert model(images()).shape == (3, 32) and model.global_pool == "avg"
    assert isinstance(model.get_classifier(), torch.nn.Identity)


def test_groups_hold_every_parameter_once_from_input_to_output() -> None:
    model = small(num_classes=4)
    groups = group_parameters(model, model.group_matcher())
    names = [name for members in groups.values() for name in members]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    layer = {name: number for number, members in groups.items() for name in members}
    assert layer["adapter.stem.first.weight"] == layer["adapter.proj.weight"] == layer["latents.shared"] == 0
    assert layer["blocks.0.norm.weight"] == 1 and layer["blocks.1.norm.weight"] == 2
    # The output side goes with the last block, as the last norm does in timm's vision transformers.
    assert layer["query"] == layer["decoder.mlp.fc1.weight"] == layer["norm.weight"] == 2
    assert layer["head.weight"] == max(layer.values()) > 2


def test_no_weight_decay_names_parameters_that_exist() -> None:
    model = small()
    assert model.no_weight_decay() <= set(dict(model.named_parameters()))
    assert {"query", "latents.shared", "latents.collections.organ"} <= model.no_weight_decay()


def test_checkpointing_gives_equal_gradients() -> None:
    found = []
    for enabled in (False, True):
        model = small().train()
        model.set_grad_checkpointing(enabled)
        model(images(), known()).square().mul(torch.arange(32.0)).sum().backward()
        found.append([parameter.grad for parameter in model.parameters()])
    for plain, recomputed in zip(*found, strict=True):
        torch.testing.assert_close(plain, recomputed, rtol=0, atol=0)


def test_a_bundle_folder_is_a_timm_model(tmp_path: Path) -> None:
    model = small()
    folder = save_bundle(tmp_path / "bundle", model, "medformer_nano", SMALL, {}, {})
    loaded = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    assert loaded.num_classes == 0
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())
    assert torch.equal(loaded(images(), known()), model(images(), known()))
    with_head = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=3).eval()
    assert with_head(images()).shape == (3, 3)
    assert torch.equal(with_head.features(images()).embedding_BD, model.features(images()).embedding_BD)


def test_timm_fits_the_weights_of_a_bundle_to_other_channels(tmp_path: Path) -> None:
    model = small()
    folder = save_bundle(tmp_path / "bundle", model, "medformer_nano", SMALL, {}, {})
    grey = timm.create_model(f"local-dir:{folder}", pretrained=True, in_chans=1).eval()
    torch.testing.assert_close(grey(images(channels=1)), model(images(channels=1)), atol=1e-5, rtol=0)
