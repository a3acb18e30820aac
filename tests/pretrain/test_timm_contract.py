"""What timm and those who use it expect of a model."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.models import group_parameters
from timm.optim import create_optimizer_v2
from torch import Tensor

from pretrain.backbone import Medformer
from pretrain.bundle import save_bundle
from tests.pretrain.test_backbone import SMALL, images, known, small
from tests.pretrain.test_volumes import trained_in_depth, volumes

BATCHES = {"planes": images(2), "volumes": volumes(2, 3, 9, 12, 10)}
KINDS = list(BATCHES)


@pytest.mark.parametrize("name, width", [("medformer_nano", 128), ("medformer_tiny", 192), ("medformer_small", 384)])
def test_sizes_are_made_by_name(name: str, width: int) -> None:
    assert timm.is_model(name)
    model = timm.create_model(name, num_classes=5, in_chans=1).eval()
    assert model.num_features == model.embed_dim == width
    assert model.pretrained_cfg["first_conv"] in {key.rpartition(".")[0] for key in model.state_dict()}
    assert model(images(1, 1)).shape == (1, 5)
    assert timm.data.resolve_data_config({}, model=model)["mean"] == (0.5, 0.5, 0.5)


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


@pytest.mark.parametrize("kind", KINDS)
def test_checkpointing_gives_equal_gradients(kind: str) -> None:
    found = []
    for enabled in (False, True):
        model = small(cross_attends=2).train()
        model.set_grad_checkpointing(enabled)
        model(BATCHES[kind]).square().mul(torch.arange(32.0)).sum().backward()
        found.append([parameter.grad for parameter in model.parameters()])
    for plain, recomputed in zip(*found, strict=True):
        torch.testing.assert_close(plain, recomputed, rtol=0, atol=0)


@pytest.mark.parametrize("pool", ["token", "avg", ""])
@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_gets_a_gradient_and_the_output_is_finite(kind: str, pool: str) -> None:
    model = trained_in_depth(small(num_classes=5, global_pool=pool, cross_attends=2)).train()
    outputs = model(BATCHES[kind])
    assert outputs.shape[0] == 2 and outputs.shape[-1] == 5 and outputs.isfinite().all()
    outputs.square().mean().backward()
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]


@pytest.mark.parametrize("pool", ["token", "avg", ""])
@pytest.mark.parametrize("kind", KINDS)
def test_pooling_and_classifier_are_what_forward_head_does(kind: str, pool: str) -> None:
    batch = BATCHES[kind]
    model = small(num_classes=4, global_pool=pool)
    tokens = model.forward_features(batch)
    assert tokens.shape == (2, 1 + math.prod(math.ceil(length / 4) for length in batch.shape[2:]), 32)
    torch.testing.assert_close(model.forward_head(tokens), model(batch), atol=1e-6, rtol=0)
    pooled = model.forward_head(tokens, pre_logits=True)
    torch.testing.assert_close(model.get_classifier()(pooled), model(batch), atol=1e-6, rtol=0)
    model.reset_classifier(0)
    torch.testing.assert_close(model(batch), pooled, atol=1e-6, rtol=0)
    assert model.num_classes == 0 and model.global_pool == pool and pooled.shape[-1] == model.head_hidden_size
    assert small(num_classes=0, global_pool=pool)(batch).shape == pooled.shape


def test_a_new_classifier_is_where_and_what_the_network_is() -> None:
    model = small(num_classes=4).to("meta", torch.float64)
    model.reset_classifier(2)
    weight = model.get_classifier().weight
    assert weight.device.type == "meta" and weight.dtype == torch.float64 and not model.get_classifier().training


def test_a_frozen_network_stays_frozen_when_its_classifier_goes_and_its_size_changes() -> None:
    model = small(num_classes=4).requires_grad_(False)
    model.reset_classifier(0, "")
    model.set_input_size((56, 56))
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_a_network_is_made_on_a_device_and_in_a_precision() -> None:
    of_one_seed = small().eval()
    made = timm.create_model("medformer_nano", **SMALL, device="meta")
    made.load_state_dict(of_one_seed.state_dict(), assign=True)
    assert torch.equal(made.eval()(images()), of_one_seed(images()))
    model = timm.create_model("medformer_nano", device="meta", dtype=torch.bfloat16, num_classes=3)
    tensors = [*model.parameters(), *model.buffers()]
    assert {(tensor.device.type, tensor.dtype) for tensor in tensors} == {("meta", torch.bfloat16)}
    assert model(torch.zeros(2, 3, 28, 28, device="meta", dtype=torch.bfloat16)).shape == (2, 3)


def test_arguments_that_no_network_has_are_refused() -> None:
    with pytest.raises(TypeError, match="not_an_argument"):
        small(not_an_argument=1)


@pytest.mark.parametrize(
    "size, expected", [(32, (32, 32)), ((24, 32), (24, 32)), ((8, 24, 32), (8, 24, 32)), ([8, 9], (8, 9))]
)
def test_a_size_is_one_number_or_one_for_each_axis(size: Any, expected: tuple[int, ...]) -> None:
    model = small(img_size=size)
    assert model.img_size == expected
    assert model(torch.zeros(1, 3, *expected)).shape == (1, 32)
    if len(expected) == 3:
        assert timm.data.resolve_data_config({}, model=model)["input_size"] == (3, *expected)
        assert small(img_size=size, features_only=True).default_cfg["input_size"] == (3, *expected)
    model.set_input_size(56)
    assert model.img_size == (56, 56)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_a_network_has_the_channels_it_is_asked_for(kind: str, channels: int) -> None:
    model = small(in_chans=channels)
    assert model.in_chans == channels and model.adapter.stem.first.in_channels == channels
    assert model(BATCHES[kind][:, :1].repeat_interleave(channels, dim=1)).isfinite().all()


def test_drop_rates_do_nothing_in_evaluation_and_something_in_training() -> None:
    batch = images(2)
    for rates in ({"drop_rate": 0.5}, {"drop_path_rate": 0.5}):
        model = small(num_classes=4, **rates)
        assert torch.equal(model(batch), model(batch))
        torch.testing.assert_close(model(batch), small(num_classes=4)(batch))
        model.train()
        assert not torch.equal(model(batch), model(batch))
    assert [getattr(block.drop_path, "drop_prob", 0.0) for block in small(depth=3, drop_path_rate=0.2).blocks] == [
        0.0,
        0.1,
        0.2,
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_intermediates_are_maps_of_every_layer(kind: str) -> None:
    batch = BATCHES[kind]
    model = small(depth=4, cross_attends=2)
    grid = tuple(math.ceil(length / 4) for length in batch.shape[2:])
    final, maps = model.forward_intermediates(batch)
    torch.testing.assert_close(final, model.forward_features(batch))
    assert [found.shape for found in maps] == [(2, 32, *grid)] * 4
    tokens = model.forward_intermediates(batch, [1, -1], output_fmt="NLC", intermediates_only=True)
    for found, expected in zip(tokens, (maps[1], maps[3]), strict=True):
        torch.testing.assert_close(found, expected.flatten(2).transpose(1, 2))
    (dense, prefix), *others = model.forward_intermediates(
        batch, 1, return_prefix_tokens=True, norm=True, output_fmt="NLC", intermediates_only=True
    )
    assert not others
    torch.testing.assert_close(torch.cat([prefix, dense], dim=1), final)


@pytest.mark.parametrize("layer", range(4))
def test_a_pruned_network_gives_what_it_gave_and_holds_no_parameter_without_use(layer: int) -> None:
    batch = images(2)
    model = small(depth=4, cross_attends=4, num_classes=3)
    expected = model.forward_intermediates(batch, [layer], intermediates_only=True)[0]
    early = model.forward_intermediates(batch, [layer], stop_early=True, intermediates_only=True)[0]
    torch.testing.assert_close(early, expected)
    pruned = copy.deepcopy(model)
    assert pruned.prune_intermediate_layers([layer], prune_norm=True) == [layer]
    assert len(pruned.blocks) == layer + 1 and len(pruned.encoders_again) == layer
    found = pruned.train().forward_intermediates(batch, [layer], intermediates_only=True)[0]
    torch.testing.assert_close(found, expected)
    (found.square().sum() + pruned.forward_features(batch).square().sum()).backward()
    assert not [name for name, parameter in pruned.named_parameters() if parameter.grad is None]


@pytest.mark.parametrize("kind", KINDS)
def test_features_only_says_its_channels_and_reductions(kind: str) -> None:
    batch = BATCHES[kind]
    model = small(depth=4, features_only=True)
    assert model.feature_info.channels() == [32] * 3 and model.feature_info.reduction() == [4] * 3
    found: list[Tensor] = model(batch)
    expected = small(depth=4).forward_intermediates(batch, 3, intermediates_only=True)
    assert all(torch.equal(first, second) for first, second in zip(found, expected, strict=True))


def test_layer_decay_gives_every_parameter_its_rate_from_input_to_output() -> None:
    model = small(depth=3, num_classes=4, cross_attends=3)
    optimizer = create_optimizer_v2(model, "adamw", lr=1.0, weight_decay=0.1, layer_decay=0.5)
    name_of = {id(parameter): name for name, parameter in model.named_parameters()}
    scale, decay = {}, {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            scale[name_of[id(parameter)]] = group["lr_scale"]
            decay[name_of[id(parameter)]] = group["weight_decay"]
    assert scale.keys() == set(name_of.values())
    assert scale["head.weight"] == 1.0
    assert scale["blocks.2.attention.qkv.weight"] == scale["decoder.attention.q.weight"] == scale["query"] == 0.5
    assert scale["blocks.1.attention.qkv.weight"] == scale["encoders_again.1.attention.q.weight"] == 0.25
    assert scale["blocks.0.attention.qkv.weight"] == 0.125
    assert scale["adapter.proj.weight"] == scale["encoder.attention.q.weight"] == scale["latents.shared"] == 0.0625
    assert all(decay[name] == 0 for name in model.no_weight_decay())
    assert decay["blocks.0.norm.weight"] == decay["blocks.0.attention.qkv.bias"] == 0
    assert decay["blocks.0.attention.qkv.weight"] == decay["adapter.stem.first.weight"] == 0.1


@pytest.mark.parametrize("name", timm.list_models("medformer_*"))
def test_the_configuration_of_every_size_is_that_of_its_network(name: str) -> None:
    model: Medformer = timm.create_model(name, device="meta")
    cfg = model.default_cfg
    assert cfg["input_size"] == (model.in_chans, *model.img_size) and cfg["architecture"] == name
    assert cfg["first_conv"] + ".weight" in model.state_dict()
    assert cfg["classifier"] + ".weight" in timm.create_model(name, device="meta", num_classes=2).state_dict()
    config = timm.data.resolve_data_config({}, model=model)
    assert config["mean"] == config["std"] == (0.5, 0.5, 0.5) and config["crop_pct"] == 1.0
    assert model.no_weight_decay() <= set(dict(model.named_parameters()))
    groups = group_parameters(model, model.group_matcher(), reverse=True)
    assert set(groups) == set(dict(model.named_parameters())) and len(set(groups.values())) > 2
    channels, *size = cfg["input_size"]
    assert model(torch.zeros(1, channels, *size, device="meta")).shape == (1, model.num_features)


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
