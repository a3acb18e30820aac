"""Networks by name: what is understood, and one clear error for what is not."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from data_shards.support.errors import CheckpointError, ConfigError
from pretrain.config import ModelConfig
from pretrain.foreign import create_foreign, is_network, own_networks, parse_network
from pretrain.module import create_backbone
from tests.pretrain.foreign_samples import FAMILIES, RESNET, VIT, made


def test_a_name_holds_arguments_and_a_file(tmp_path: Path) -> None:
    file = tmp_path / "of, any=name@all.safetensors"
    file.touch()
    found = parse_network(f"timm:vit_tiny_patch16_224,patch_size=4,img_size=[28,20]@{file}")
    assert found.name == "vit_tiny_patch16_224" and found.weights == file
    assert found.model_args == {"patch_size": 4, "img_size": [28, 20]}
    assert parse_network("timm:resnet18.a1_in1k").name == "resnet18.a1_in1k"
    assert is_network("timm:resnet18") and is_network("medformer_nano") and not is_network("resnet18")
    assert {"medformer_nano", "resnet18_3d", "vit_small_3d"} <= set(own_networks())
    assert not parse_network("medformer_nano").foreign and parse_network("resnet18_3d").foreign


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("timm:resnet81", "timm has no model 'resnet81'; the nearest are resnet18, "),
        ("timm:vit_tiny_patch16_242", "the nearest are vit_tiny_patch16_224, "),
        ("timm:zzzzzzzzzz", "timm.list_models\\(\\) says which there are"),
        ("resnet18", "timm's is timm:resnet18"),
        ("medformer_nanoo", "did you mean 'medformer_nano'"),
        ("timm:medformer_nano", "is not timm's; call it medformer_nano"),
        ("timm:resnet18,pretrained=true", "nothing is downloaded"),
        ("timm:resnet18,checkpoint_path=x.bin", "safetensors files alone"),
        ("timm:resnet18,num_classes=3", "num_classes is no argument of a backbone"),
        ("timm:resnet18,deep", "'deep' is no argument"),
        ("timm:resnet18@/nowhere.safetensors", "/nowhere.safetensors is no file"),
    ],
)
def test_what_is_no_network_is_refused_in_a_line(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        parse_network(text)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_an_argument_that_the_model_does_not_take_is_named() -> None:
    with pytest.raises(ConfigError, match=r"resnet18 cannot be made with \{'patch_size': 4\}: .*patch_size"):
        create_foreign("resnet18", {"patch_size": 4})
    with pytest.raises(ConfigError, match=r"it takes no argument 'embedding'; did you mean 'embed_dim'\?$"):
        create_foreign("vit_tiny_patch16_224", {"embedding": "latents"})
    with pytest.raises(ConfigError, match=r"it takes no argument 'drop_rat'; did you mean 'drop_rate'"):
        create_foreign("efficientnet_b0.ra_in1k", {"drop_rat": 0.1})
    with pytest.raises(ConfigError, match=r"it takes no argument 'pretraned'; valid: aa_layer, (?!.*pretrained_cfg)"):
        create_foreign("resnet18", {"pretraned": True})
    with pytest.raises(ConfigError, match=r"model.kwargs: resnet18 cannot be made"):
        create_backbone(ModelConfig(name="timm:resnet18", kwargs={"patch_size": 4}))
    with pytest.raises(ConfigError, match="arguments belong into model.kwargs"):
        create_backbone(ModelConfig(name="timm:resnet18,in_chans=1"))
    with pytest.raises(ConfigError, match="nothing is downloaded"):
        create_backbone(ModelConfig(name="timm:resnet18", kwargs={"pretrained": True}))


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_of_a_classifier_are_read_without_it(family: str, tmp_path: Path) -> None:
    name, args = FAMILIES[family]
    torch.manual_seed(5)
    model = timm.create_model(name, **args)  # with its 1000 classes
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    found = create_foreign(name, args, tmp_path / "w.safetensors")
    own = found.network.state_dict()
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in own.items())
    assert "state_dict" not in found.pretrained_cfg or found.pretrained_cfg["state_dict"] is None


def test_weights_at_224_pixels_become_those_of_small_patches(tmp_path: Path) -> None:
    large = {**VIT, "img_size": 224, "patch_size": 16}
    torch.manual_seed(0)
    save_file(timm.create_model("vit_tiny_patch16_224", **large).state_dict(), tmp_path / "w.safetensors")
    found = create_foreign("vit_tiny_patch16_224", VIT, tmp_path / "w.safetensors").network.state_dict()
    overlay = {"file": str(tmp_path / "w.safetensors")}
    theirs = timm.create_model("vit_tiny_patch16_224", pretrained=True, pretrained_cfg_overlay=overlay, **VIT)
    assert all(torch.equal(value, theirs.state_dict()[key]) for key, value in found.items())


def test_files_that_are_not_these_weights_are_refused(tmp_path: Path) -> None:
    torch.save(made("resnet").network.state_dict(), tmp_path / "pickle.pth")
    with pytest.raises(CheckpointError, match="pickle can run any program"):
        create_foreign("resnet18", RESNET, tmp_path / "pickle.pth")
    (tmp_path / "broken.safetensors").write_bytes(b"no header")
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        create_foreign("resnet18", RESNET, tmp_path / "broken.safetensors")
    save_file({}, tmp_path / "empty.safetensors")
    with pytest.raises(CheckpointError, match="there is no tensor in it"):
        create_foreign("resnet18", RESNET, tmp_path / "empty.safetensors")
    save_file(made("vit").network.state_dict(), tmp_path / "vit.safetensors")
    with pytest.raises(CheckpointError, match="not the weights of resnet18: Missing key"):
        create_foreign("resnet18", RESNET, tmp_path / "vit.safetensors")
    save_file(made("resnet").network.state_dict(), tmp_path / "narrow.safetensors")
    with pytest.raises(CheckpointError, match="not the weights of resnet18: Unexpected key"):
        create_foreign("resnet18", {}, tmp_path / "narrow.safetensors")
    with pytest.raises(CheckpointError, match="not the weights of resnet18"):
        create_backbone(ModelConfig(name="timm:resnet18", init_from=tmp_path / "narrow.safetensors"))
