"""Networks of timm in fine-tuning: every strategy, exact bits of what stays, saved models, and what is refused."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from data_shards.support.errors import ConfigError
from finetune.backbones import open_backbone
from finetune.cases import Cases
from finetune.classifier.estimator import FewLabelClassifier
from finetune.fit.features import summaries
from finetune.readers import read_cases
from finetune.strategies.groups import backbone_groups, layers_of
from finetune.strategies.low_rank_weights import change_weights, merge_changes
from pretrain.backbone.modes import hold_statistics
from pretrain.bundle import save_bundle
from pretrain.foreign import create_foreign
from tests.finetune.samples import blobs, solid_blobs
from tests.pretrain.foreign_samples import FAMILIES, RESNET, VIT, made

QUICK: dict[str, Any] = {"max_steps": 6, "learning_rate": 3e-3, "batch_size": 8, "calibrate": False}


def planes(count: int, seed: int = 0) -> Cases:
    return blobs(count, seed=seed, side=28)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("strategy", ["frozen", "full", "low_rank", "selective", "two_stage"])
def test_every_strategy_fits_and_what_it_does_not_move_keeps_its_bits(family: str, strategy: str) -> None:
    backbone = made(family)
    before = copy.deepcopy(backbone.network.state_dict())
    params: dict[str, Any] = {} if strategy == "frozen" else QUICK
    model = FewLabelClassifier(backbone, strategy=strategy, **params).fit(planes(16))
    found = model.predict_proba(planes(6, seed=1))
    assert found.shape == (6, 2) and np.isfinite(found).all()
    after = model.predictor_.members[0].backbone.network.state_dict()
    assert list(after) == list(before), "its tensors are timm's, whatever the strategy did to it meanwhile"
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert all(torch.equal(value, before[name]) for name, value in backbone.network.state_dict().items())
    if strategy == "frozen":
        assert not moved
    elif strategy == "low_rank":
        assert moved and all(before[name].ndim > 1 for name in moved), "no bias, norm or statistic"
    elif strategy == "selective":
        last = {name for layer in layers_of(backbone)[-2:] for name in layer}
        statistics = {name.rpartition(".")[0] for name in last}
        assert moved and {name for name in moved if name.rpartition(".")[0] not in statistics} <= last


def test_layers_near_the_input_learn_slower() -> None:
    for family, first, last in (
        ("resnet", "conv1.weight", "layer4.1.conv2.weight"),
        ("vit", "patch_embed.proj.weight", "blocks.1.mlp.fc2.weight"),
    ):
        backbone = made(family)
        parameters = dict(backbone.network.named_parameters())
        rate = {id(p): group["lr"] for group in backbone_groups(backbone, 1.0, 0.05, 0.5) for p in group["params"]}
        decay = {id(p): g["weight_decay"] for g in backbone_groups(backbone, 1.0, 0.05, 0.5) for p in g["params"]}
        depth = len(layers_of(backbone))
        assert set(rate) == {id(parameter) for parameter in backbone.parameters()}
        assert rate[id(parameters[last])] == pytest.approx(1.0)
        assert rate[id(parameters[first])] == pytest.approx(0.5 ** (depth - 1))
        assert decay[id(parameters[first])] == 0.05
        if family == "vit":
            assert decay[id(parameters["pos_embed"])] == decay[id(parameters["norm.weight"])] == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_low_rank_changes_begin_at_the_network_and_end_in_its_weights(family: str) -> None:
    backbone = made(family).double()
    images = torch.rand(2, 3, 28, 28, dtype=torch.float64)
    before = backbone.features(images).embedding_BD.detach()
    weights = copy.deepcopy(backbone.network.state_dict())
    change_weights(backbone.network, "all", 2, None, 0.0)
    torch.testing.assert_close(backbone.features(images).embedding_BD, before, rtol=1e-12, atol=1e-12)
    changed = {}
    for name, module in backbone.named_modules():
        if hasattr(module, "up_OR"):
            torch.nn.init.normal_(module.up_OR, std=0.1)
            layer = name.removeprefix("model.").partition(".parametrizations")[0]
            product = (2.0 * module.up_OR @ module.down_RI).detach()  # alpha / rank is 2
            changed[f"{layer}.weight"] = weights[f"{layer}.weight"] + product.view_as(weights[f"{layer}.weight"])
    during = backbone.features(images).embedding_BD.detach()
    assert (during - before).abs().max() > 1e-3
    merge_changes(backbone.network)
    after = backbone.network.state_dict()
    assert list(after) == list(weights) and changed
    for name, value in after.items():
        torch.testing.assert_close(value, changed.get(name, weights[name]), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(backbone.features(images).embedding_BD, during, rtol=1e-9, atol=1e-9)


def test_low_rank_says_what_it_cannot_change() -> None:
    network = made("resnet").network
    with pytest.raises(ConfigError, match="ResNet has no layers of kind 'attention'"):
        change_weights(network, "attention", 2, None, 0.0)
    with pytest.raises(ConfigError, match=r"rank 9; a weight \(8, 64, 3, 3\) of the backbone has rank 8"):
        change_weights(network, "all", 9, None, 0.0)
    with pytest.raises(ConfigError, match="dropout 0.5"):
        change_weights(network, "all", 2, None, 0.5)
    blocks = made("vit").network
    change_weights(blocks, "attention", 2, None, 0.0)
    names = {name for name, _ in blocks.named_parameters() if name.endswith("up_OR")}
    assert len(names) == 4 and all(".attn.qkv." in name or ".attn.proj." in name for name in names)


def test_statistics_of_a_layer_that_is_not_trained_are_held() -> None:
    network = made("resnet").network.train()
    frozen, moving = network.layer1[0].bn1, network.layer4[0].bn1
    frozen.weight.requires_grad_(False)
    hold_statistics(network)
    assert not frozen.training and moving.training


@pytest.mark.parametrize("head", ["linear", "attention", "mil", "spd"])
def test_every_head_reads_such_a_network(head: str) -> None:
    model = FewLabelClassifier(made("vit"), head=head, strategy="full", **QUICK).fit(planes(12))
    assert np.isfinite(model.predict_proba(planes(4, seed=1))).all()


def test_a_bundle_is_fine_tuned_saved_and_said_again(tmp_path: Path) -> None:
    for family in ("resnet", "convnext", "vit"):
        bundle = save_bundle(tmp_path / family, made(family), "", {}, {}, {})
        model = FewLabelClassifier(bundle, strategy="full", **QUICK).fit(planes(12))
        said = model.predict_proba(planes(5, seed=2))
        model.save(tmp_path / f"{family}-classifier")
        loaded = FewLabelClassifier.load(tmp_path / f"{family}-classifier")
        assert np.array_equal(loaded.predict_proba(planes(5, seed=2)), said)
        name, _ = FAMILIES[family]
        theirs = timm.create_model(f"local-dir:{tmp_path / f'{family}-classifier' / 'backbone'}", pretrained=True)
        own = loaded.predictor_.members[0].backbone.network.state_dict()
        assert all(torch.equal(value, own[key]) for key, value in theirs.state_dict().items()), name


def test_a_file_of_weights_is_fine_tuned_and_known_again(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    save_file(made("vit").network.state_dict(), file)
    name = "timm:vit_tiny_patch16_224," + ",".join(f"{key}={value}" for key, value in VIT.items()) + f"@{file}"
    opened = open_backbone(name, 0)
    assert opened.pretrained and opened.architecture == "vit_tiny_patch16_224"
    images = planes(5)
    np.testing.assert_array_equal(
        summaries(opened.module, images).embedding_ND, summaries(made("vit"), images).embedding_ND
    )
    model = FewLabelClassifier(name).fit(planes(12))
    model.save(tmp_path / "classifier")
    loaded = FewLabelClassifier.load(tmp_path / "classifier")
    again = FewLabelClassifier(loaded.backbone).fit(planes(12))
    assert np.array_equal(again.predict_proba(images), model.predict_proba(images))
    save_file(made("vit", seed=1).network.state_dict(), file)
    with pytest.raises(ConfigError, match="has other weights"):
        FewLabelClassifier(loaded.backbone).fit(planes(12))


def test_a_fresh_network_by_name_is_that_of_its_seed() -> None:
    name = "timm:resnet18,channels=[8,12,16,24]"
    first, again, other = (open_backbone(name, seed) for seed in (0, 0, 1))
    assert not first.pretrained and first.origin == f"fresh {name}"
    equal = [
        all(torch.equal(a, b) for a, b in zip(first.module.parameters(), each.module.parameters(), strict=True))
        for each in (again, other)
    ]
    assert equal == [True, False]


def test_volumes_are_read_by_the_volumetric_networks_and_slice_by_slice_by_others() -> None:
    given, new = solid_blobs(12), solid_blobs(4, seed=1)
    with pytest.raises(ConfigError, match="reads planes, the images are"):
        FewLabelClassifier(made("resnet")).fit(given)
    sliced = FewLabelClassifier(made("resnet"), slices={"axis": 0}).fit(given)
    assert np.isfinite(sliced.predict_proba(new)).all()
    torch.manual_seed(0)
    for name, args in (("resnet18_3d", RESNET), ("vit_tiny_3d", {**VIT, "img_size": 16, "patch_size": 4})):
        backbone = create_foreign(name, args)
        for strategy in ("frozen", "full", "low_rank"):
            params: dict[str, Any] = {} if strategy == "frozen" else QUICK
            model = FewLabelClassifier(backbone, strategy=strategy, **params).fit(given)
            assert np.isfinite(model.predict_proba(new)).all()


def test_steppers_by_sample_say_what_stands_in_their_way() -> None:
    dba = {**QUICK, "strategy": "full", "stepper": "dba"}
    with pytest.raises(ConfigError, match="normalises by statistics of the batch"):
        FewLabelClassifier(made("resnet"), **dba).fit(planes(12))
    with pytest.raises(ConfigError, match=r"\(VisionTransformer\): there is no rule for gradients by sample"):
        FewLabelClassifier(made("vit"), **dba).fit(planes(12))


def test_real_ultrasound_by_a_network_of_timm(shared_data: Path) -> None:
    splits = read_cases(shared_data / "medmnist" / "breastmnist.npz")
    train = splits["train"].shared()
    labels = train.targets
    few = train.select(np.concatenate([np.flatnonzero(labels == place)[:20] for place in (0, 1)]))
    for family in ("resnet", "vit"):
        for strategy in ("frozen", "full"):
            params: dict[str, Any] = {} if strategy == "frozen" else QUICK
            model = FewLabelClassifier(made(family), strategy=strategy, **params).fit(few)
            said = model.predict_proba(splits["val"])
            assert said.shape == (78, 2) and np.allclose(said.sum(axis=1), 1)
