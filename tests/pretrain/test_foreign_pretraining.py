"""The objectives train any network of timm: it resumes to the same bits, and its bundle is timm's own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from data_shards.support.errors import CheckpointError, ConfigError
from pretrain.bundle import load_bundle, save_bundle
from pretrain.config import PretrainConfig
from pretrain.engine import run
from pretrain.foreign import create_foreign
from pretrain.module import PretrainModule, create_backbone
from pretrain.preflight import check
from tests.pretrain.foreign_samples import FAMILIES, RESNET, VIT, in_own_range, made
from tests.pretrain.objective_views import document_of, drifting_images, views_of
from tests.pretrain.runs import GroupRuntime, Run, assert_equal_bits, document

STEPS = 6
NETWORKS: dict[str, dict[str, Any]] = {
    "resnet": {"name": "timm:resnet18", "kwargs": RESNET},
    "vit": {"name": "timm:vit_tiny_patch16_224", "kwargs": VIT},
}


def config_of(shards: Path, out: Path, model: dict[str, Any], **changes: Any) -> PretrainConfig:
    content = document(
        shards, out, model=model, schedule={"max_steps": STEPS}, checkpoint={"every_steps": 2}, **changes
    )
    return PretrainConfig.model_validate(content)


@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("network", [pytest.param("resnet", marks=pytest.mark.slow), "vit"])
def test_a_run_that_was_stopped_ends_with_the_same_bits_and_a_bundle_of_timms(
    network: str, shards: Path, tmp_path: Path
) -> None:
    whole, parts = (Run(tmp_path / f"{name}.yaml", tmp_path / name) for name in ("whole", "parts"))
    config = config_of(shards, whole.out, NETWORKS[network])
    check(config, 1, resume=False)
    bundle = run(config, GroupRuntime())
    assert run(config_of(shards, parts.out, NETWORKS[network]), GroupRuntime(stop_after=3)) is None
    assert run(config_of(shards, parts.out, NETWORKS[network]), GroupRuntime(), resume=True)
    assert_equal_bits(parts, whole)
    lines = whole.metrics()
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    for name in ("simclr", "byol", "barlow_twins"):
        assert f"{name}/loss" in lines[-1]

    assert bundle is not None
    loaded = load_bundle(bundle)
    theirs = timm.create_model(f"local-dir:{bundle}", pretrained=True)
    own = loaded.backbone.network.state_dict()
    assert set(own) == set(theirs.state_dict()), "strictly the tensors that timm's model has"
    assert all(torch.equal(value, own[key]) for key, value in theirs.state_dict().items())
    fresh = create_backbone(config.model).network.state_dict()
    assert any(not torch.equal(value, fresh[key]) for key, value in own.items())
    images = torch.rand(2, 3, 28, 28) * 2 - 1
    with torch.no_grad():
        expected = theirs.eval()(in_own_range(images, theirs))
        torch.testing.assert_close(loaded.backbone.features(images).embedding_BD, expected, rtol=1e-5, atol=1e-6)
    assert "timm's registry" in (bundle / "README.md").read_text()

    again = {**NETWORKS[network], "init_from": str(bundle)}
    started = create_backbone(config_of(shards, tmp_path / "again", again).model).network.state_dict()
    assert all(torch.equal(value, own[key]) for key, value in started.items())
    other = {**again, "kwargs": {**again["kwargs"], "in_chans": 1}}
    with pytest.raises(ConfigError, match="they must agree"):
        create_backbone(config_of(shards, tmp_path / "again", other).model)


@pytest.mark.usefixtures("process_group")
def test_volumetric_baselines_are_pretrained_too(solid_shards: Path, tmp_path: Path) -> None:
    for name, args in (("resnet18_3d", RESNET), ("vit_tiny_3d", {**VIT, "img_size": 12, "patch_size": 4})):
        content = document(
            solid_shards, tmp_path / name, model={"name": name, "kwargs": args}, schedule={"max_steps": 2}
        )
        config = PretrainConfig.model_validate(content)
        check(config, 1, resume=False)
        bundle = run(config, GroupRuntime())
        assert bundle is not None
        theirs = timm.create_model(f"local-dir:{bundle}", pretrained=True)
        own = load_bundle(bundle).backbone.network.state_dict()
        assert all(torch.equal(value, own[key]) for key, value in theirs.state_dict().items())


@pytest.mark.parametrize(
    ("objective", "network"),
    [
        pytest.param(
            objective, network, marks=[pytest.mark.slow] if network == "resnet" and objective != "dino" else []
        )
        for objective in ("simclr", "byol", "barlow_twins", "swav", "dino", "rotation", "jigsaw", "brainfuse")
        for network in NETWORKS
    ],
)
def test_objectives_of_the_embedding_reach_every_weight(objective: str, network: str) -> None:
    config = document_of({objective: {}}, model=NETWORKS[network])
    torch.manual_seed(0)
    module = PretrainModule(create_backbone(config.model), config.objectives).double().train()
    module(views_of(config, drifting_images(8, (3, 28, 28))))[0].backward()
    still = [
        name for name, each in module.backbone.named_parameters() if each.grad is None or not each.grad.isfinite().all()
    ]
    assert not still and any(each.grad.any() for each in module.backbone.parameters() if each.grad is not None)


def test_micro_batches_of_a_transformer_give_the_gradient_of_the_whole_batch() -> None:
    found = []
    for size in (None, 3):
        config = document_of({"simclr": {"hidden": 12, "out": 8}}, size, model=NETWORKS["vit"])
        torch.manual_seed(0)
        module = PretrainModule(create_backbone(config.model), config.objectives).double().train()
        module(views_of(config, drifting_images(8, (3, 28, 28))))[0].backward()
        found.append({name: each.grad for name, each in module.named_parameters()})
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize(
    ("objectives", "said"),
    [
        ({"masked": {}}, "objectives.masked: shows the network parts of an image"),
        ({"restore": {}}, "objectives.restore"),
        ({"dino": {"ibot": 1.0}}, "objectives.dino.ibot"),
    ],
)
def test_objectives_that_ask_for_places_refuse_other_networks(
    objectives: dict[str, Any], said: str, shards: Path
) -> None:
    config = config_of(shards, Path("none"), NETWORKS["resnet"], objectives=objectives)
    with pytest.raises(ConfigError, match=said):
        PretrainModule(create_backbone(config.model), config.objectives)
    with pytest.raises(ConfigError, match=said):
        check(config, 1, resume=False)


def test_what_such_a_network_cannot_do_is_refused_before_anything_starts(shards: Path, tmp_path: Path) -> None:
    resnet = config_of(shards, tmp_path / "out", NETWORKS["resnet"])
    data = resnet.data.model_copy(update={"micro_batch_size": 4})
    with pytest.raises(ConfigError, match=r"batch normalisation \(.*bn1\)"):
        check(resnet.model_copy(update={"data": data}), 1, resume=False)
    with pytest.raises(ConfigError, match="3 splits the weights of the networks medformer_\\* alone"):
        check(
            config_of(shards, tmp_path, NETWORKS["vit"], deepspeed={"zero_optimization": {"stage": 3}}), 2, resume=False
        )
    with pytest.raises(ConfigError, match="model.name: timm has no model 'resnet81'; the nearest are resnet18"):
        check(config_of(shards, tmp_path, {"name": "timm:resnet81"}), 1, resume=False)


def test_a_bundle_that_names_a_file_to_load_is_refused(tmp_path: Path) -> None:
    folder = save_bundle(tmp_path / "bundle", made("resnet"), "", {}, {}, {})
    config = json.loads((folder / "config.json").read_text())
    assert config["architecture"] == "resnet18" and config["model_args"] == RESNET
    config["model_args"]["checkpoint_path"] = "evil.bin"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="checkpoint_path"):
        load_bundle(folder)


def test_a_bundle_whose_weights_are_of_another_network_is_one_line_with_the_first_tensor(tmp_path: Path) -> None:
    folder = save_bundle(tmp_path / "bundle", made("resnet"), "", {}, {}, {})
    first = made("resnet").network.state_dict()["conv1.weight"].shape
    config = json.loads((folder / "config.json").read_text())
    config["model_args"] |= {"in_chans": first[1] + 1}
    (folder / "config.json").write_text(json.dumps(config))
    wider = (first[0], first[1] + 1, *first[2:])
    with pytest.raises(CheckpointError) as error:
        load_bundle(folder)
    assert str(error.value) == (
        f"{folder / 'model.safetensors'}: tensor conv1.weight has shape {tuple(first)}, the model expects {wider}; the "
        "file is of another model size"
    )
    other = save_bundle(tmp_path / "other", made("vit"), "", {}, {}, {})
    shutil.copy(other / "model.safetensors", folder)
    with pytest.raises(CheckpointError, match="tensor conv1.weight is missing; the file is of another model"):
        load_bundle(folder)


def test_a_bundle_keeps_the_mean_and_deviation_it_was_trained_with(tmp_path: Path) -> None:
    name, args = FAMILIES["vit"]
    torch.manual_seed(0)
    backbone = create_foreign(name, args, cfg={"mean": (0.2, 0.3, 0.4), "std": (0.1, 0.2, 0.3)}).eval()
    loaded = load_bundle(save_bundle(tmp_path / "bundle", backbone, "", {}, {}, {})).backbone
    images = torch.rand(2, 3, 28, 28)
    with torch.no_grad():
        assert torch.equal(loaded.features(images).embedding_BD, backbone.features(images).embedding_BD)
    torch.testing.assert_close(loaded.scale_C, 0.5 / torch.tensor([0.1, 0.2, 0.3]))
