"""Weights open through timm's ordinary ways, on other channels, classes and axes; others are refused by name."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.models import save_for_hf
from torch import Tensor

from data_shards.support.errors import CheckpointError
from pretrain.backbone import Medformer
from pretrain.backbone.loading import checkpoint_filter_fn
from pretrain.backbone.stems import channels_as
from pretrain.bundle import load_bundle, save_bundle
from tests.pretrain.test_backbone import SMALL, images, known, small
from tests.pretrain.test_volumes import trained_in_depth, volumes


@pytest.fixture(scope="module")
def model() -> Medformer:
    return trained_in_depth(small())


@pytest.fixture
def folder(model: Medformer, tmp_path: Path) -> Path:
    return save_bundle(tmp_path / "bundle", model, "medformer_nano", SMALL, {}, {})


def from_folder(folder: Path, **changes: Any) -> Medformer:
    return timm.create_model(f"local-dir:{folder}", pretrained=True, **changes).eval()


def from_file(folder: Path, **changes: Any) -> Medformer:
    overlay = {"file": str(folder / "model.safetensors")}
    arguments = {**SMALL, **changes}
    return timm.create_model("medformer_nano", pretrained=True, pretrained_cfg_overlay=overlay, **arguments).eval()


def equal(first: Medformer, second: Medformer) -> None:
    for batch in (images(2), volumes(2, 3)):
        torch.testing.assert_close(first.features(batch).embedding_BD, second.features(batch).embedding_BD)


@pytest.mark.parametrize("opened", [from_folder, from_file])
def test_a_bundle_opens_with_every_tensor_and_any_number_of_classes(
    model: Medformer, folder: Path, opened: Any
) -> None:
    for classes in (0, 5):
        found = opened(folder, num_classes=classes)
        own = {name: value for name, value in found.state_dict().items() if not name.startswith("head.")}
        assert own.keys() == model.state_dict().keys()
        assert all(torch.equal(value, model.state_dict()[name]) for name, value in own.items())
        assert found(images()).shape == (3, classes or 32)


@pytest.mark.parametrize("opened", [from_folder, from_file])
@pytest.mark.parametrize("canonical, channels", [(1, 3), (3, 1), (3, 4), (4, 3)])
def test_a_bundle_opens_on_other_channels_of_planes_and_volumes(
    canonical: int, channels: int, opened: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = trained_in_depth(small(in_chans=canonical))
    folder = save_bundle(tmp_path / "bundle", model, "medformer_nano", {**SMALL, "in_chans": canonical}, {}, {})
    with caplog.at_level("WARNING"):
        found = opened(folder, in_chans=channels)
    assert not caplog.records, "timm has nothing to warn of"
    first = found.adapter.stem.first
    assert torch.equal(first.weight, channels_as(model.adapter.stem.first.weight, channels))
    for batch in (images(2, channels), volumes(2, channels)):
        torch.testing.assert_close(found(batch), model(batch), atol=1e-5, rtol=1e-5)


def test_a_bundle_says_the_channels_size_and_crop_it_is_for(tmp_path: Path) -> None:
    arguments = {**SMALL, "in_chans": 1, "img_size": (20, 24, 28)}
    model = small(in_chans=1, img_size=(20, 24, 28))
    folder = save_bundle(tmp_path / "volumes", model, "medformer_nano", arguments, {}, {})
    found = from_folder(folder)
    assert found.img_size == (20, 24, 28) and found.in_chans == 1
    config = timm.data.resolve_data_config({}, model=found)
    assert config["input_size"] == (1, 20, 24, 28) and config["crop_pct"] == 1.0
    assert list(config["mean"]) == list(config["std"]) == [0.5]
    assert from_folder(folder, img_size=32, in_chans=3).img_size == (32, 32)
    assert load_bundle(folder).backbone.img_size == (20, 24, 28)


def test_a_bundle_leaves_out_the_classifier(tmp_path: Path) -> None:
    model = small(num_classes=4)
    folder = save_bundle(tmp_path / "bundle", model, "medformer_nano", {**SMALL, "num_classes": 4}, {}, {})
    equal(load_bundle(folder).backbone, model)
    equal(from_folder(folder), model)


@pytest.mark.parametrize("size", [(20, 24), (20, 24, 28)])
def test_what_timm_exports_opens_again_with_its_classifier(size: tuple[int, ...], tmp_path: Path) -> None:
    model = small(num_classes=4, in_chans=2)
    model.reset_classifier(6, "avg")
    model.set_input_size(size)
    save_for_hf(model, str(tmp_path), safe_serialization=True)
    (tmp_path / "pytorch_model.bin").unlink(missing_ok=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    found = from_folder(tmp_path)
    assert found.img_size == size and found.global_pool == "avg" and found.in_chans == 2
    assert torch.equal(found(images(2, 2)), model(images(2, 2)))
    features = from_folder(tmp_path, features_only=True, out_indices=[1])
    torch.testing.assert_close(features(images(2, 2))[0], model.forward_intermediates(images(2, 2), [1])[1][0])


def test_features_alone_open_from_a_bundle_on_volumes(model: Medformer, folder: Path) -> None:
    found = from_folder(folder, features_only=True, out_indices=(0, 1))
    expected = model.forward_intermediates(volumes(2, 3), intermediates_only=True)
    for first, second in zip(found(volumes(2, 3)), expected, strict=True):
        torch.testing.assert_close(first, second)


WRAPPED = [
    lambda tensors: {"state_dict": tensors, "epoch": 3},
    lambda tensors: {"model": {"module": tensors}},
    lambda tensors: {"state_dict": {}, "model_ema": tensors},
    lambda tensors: {f"module.{name}": value for name, value in tensors.items()},
    lambda tensors: {f"module._orig_mod.{name}": value for name, value in tensors.items()},
    lambda tensors: {f"_orig_mod.module.{name}": value for name, value in tensors.items()},
    lambda tensors: {f"model.backbone.{name}": value for name, value in tensors.items()} | {"model.projector": 0},
    lambda tensors: tensors | {"head.weight": torch.zeros(7, 32), "head.bias": torch.zeros(7)},
]


@pytest.mark.parametrize("wrap", WRAPPED)
def test_tensors_are_found_in_the_wrappers_of_training_frameworks(model: Medformer, wrap: Any) -> None:
    tensors = model.state_dict()
    found = checkpoint_filter_fn(wrap(tensors), small())
    assert found.keys() == tensors.keys() and all(found[name] is value for name, value in tensors.items())


def test_weights_from_before_volumes_studies_and_words_of_the_vocabulary_open(model: Medformer, folder: Path) -> None:
    path = folder / "model.safetensors"
    old = {name: value for name, value in load_file(path).items() if not name.endswith("depth") and name != "tags"}
    old["latents.collections.organ"] = old["latents.collections.organ"][:-1].clone()
    save_file(old, path)
    for found in (from_folder(folder), from_folder(folder, num_classes=3), load_bundle(folder).backbone):
        assert torch.equal(
            found.features(images(), known()).embedding_BD, model.features(images(), known()).embedding_BD
        )
        assert not found.tags.any() and not found.adapter.proj_depth.any()


def test_weights_that_share_storage_open_with_timm(tmp_path: Path) -> None:
    model = small()
    model.blocks[1] = model.blocks[0]
    model.decoder.mlp.fc1.weight = torch.nn.Parameter(model.encoder.mlp.fc1.weight.T.contiguous().T)
    equal(from_folder(save_bundle(tmp_path / "tied", model, "medformer_nano", SMALL, {}, {})), model)


def changed(**changes: Tensor | None) -> Any:
    def change(path: Path) -> None:
        tensors = load_file(path) | {name.replace("__", "."): value for name, value in changes.items()}
        save_file({name: value for name, value in tensors.items() if value is not None}, path)

    return change


BROKEN = [
    (changed(query=None), "tensor query is missing; the file is of another model"),
    (changed(norm__weight=torch.zeros(64)), r"tensor norm.weight has shape \(64,\), the model expects \(32,\)"),
    (changed(intruder=torch.zeros(1)), "tensor intruder is not in the model"),
    (lambda path: path.write_bytes(path.read_bytes()[:-100]), "not a readable safetensors file"),
    (lambda path: path.write_bytes(path.read_bytes()[:50]), "not a readable safetensors file"),
    (lambda path: path.write_bytes(b""), "not a readable safetensors file"),
    (lambda path: path.write_bytes(pickle.dumps({"query": 1})), "not a readable safetensors file"),
]


@pytest.mark.parametrize("classes", [0, 5])
@pytest.mark.parametrize("opened", [from_folder, from_file])
@pytest.mark.parametrize("damage, message", BROKEN)
def test_a_file_that_does_not_fit_is_one_clear_error(
    folder: Path, damage: Any, message: str, opened: Any, classes: int
) -> None:
    damage(folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=message) as error:
        opened(folder, num_classes=classes)
    assert str(folder) in str(error.value)


def test_a_bundle_of_another_size_or_of_another_network_is_refused(folder: Path) -> None:
    for change in ({"embed_dim": 64}, {"depth": 3}, {"depth": 1}, {"latents": 3}, {"stride": 8}, {"stem": "patch"}):
        with pytest.raises(CheckpointError, match="the file is of another model"):
            from_file(folder, num_classes=2, **change)
    save_file(timm.create_model("test_vit").state_dict(), folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="is missing; the file is of another model"):
        from_folder(folder, num_classes=2)


def test_a_file_that_is_not_there_is_named(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="model.safetensors: there is no such file"):
        from_file(folder)


def test_an_overlay_may_say_the_size_of_volumes() -> None:
    model = timm.create_model("medformer_nano", **SMALL, pretrained_cfg_overlay={"input_size": (1, 8, 10, 12)})
    assert model.img_size == (8, 10, 12) and model.pretrained_cfg["input_size"][1:] == (8, 10, 12)


class Evil:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("touched"),)


def test_a_pickle_is_never_run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (folder / "model.safetensors").unlink()
    torch.save({"query": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="model.safetensors is missing"):
        load_bundle(folder)
    with pytest.raises(RuntimeError, match="weights_only=True blocked"):
        from_folder(folder)
    assert not (tmp_path / "touched").exists()


def test_a_folder_of_another_architecture_is_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architecture": "medformer_huge"}))
    with pytest.raises(RuntimeError, match="Unknown model.*medformer_huge"):
        from_folder(folder)
