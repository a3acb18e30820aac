"""Model bundles: what is written is read, and anything else is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from data_shards.support.errors import CheckpointError, MedformerError
from pretrain.bundle import FILES, load_bundle, save_bundle
from tests.pretrain.test_backbone import SMALL, images, known, small

PROVENANCE = {
    "datasets": [{"title": "T", "samples": 3, "licence": "CC0", "official": False, "note": "made up"}],
    "objectives": ["byol"],
    "seed": 1,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_bundle(
        tmp_path / "bundle", small(), "medformer_nano", SMALL, PROVENANCE, {"pretraining": {"loss": 1.5}}
    )


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_weights(folder: Path, changes: dict[str, torch.Tensor | None]) -> None:
    tensors = load_file(folder / "model.safetensors") | changes
    save_file({name: value for name, value in tensors.items() if value is not None}, folder / "model.safetensors")


def test_round_trip_is_exact(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert [path.name for path in folder.parent.iterdir()] == ["bundle"], "nothing else is left beside it"
    bundle = load_bundle(folder)
    assert not bundle.backbone.training
    expected = small().state_dict()
    assert set(bundle.backbone.state_dict()) == set(expected)
    assert all(torch.equal(value, expected[name]) for name, value in bundle.backbone.state_dict().items())
    assert torch.equal(bundle.backbone(images(), known()), small()(images(), known()))
    assert bundle.provenance == PROVENANCE and bundle.metrics == {"pretraining": {"loss": 1.5}}
    assert "T: 3 images, licence CC0 (not official: made up)" in (folder / "README.md").read_text()


def test_configuration_says_what_timm_reads(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    assert config["architecture"] == "medformer_nano" and config["model_args"] == {**SMALL, "stem": "hmlp", "stride": 4}
    assert config["num_classes"] == 0 and config["num_features"] == 32
    assert config["pretrained_cfg"]["input_size"] == [3, 28, 28]
    assert config["pretrained_cfg"]["mean"] == config["pretrained_cfg"]["std"] == [0.5, 0.5, 0.5]
    assert config["pretrained_cfg"]["first_conv"] + ".weight" in load_file(folder / "model.safetensors")


def test_tensors_that_share_storage_are_saved_under_each_name(tmp_path: Path) -> None:
    model = small()
    model.blocks[1] = model.blocks[0]
    model.decoder.mlp.fc1.weight = torch.nn.Parameter(model.encoder.mlp.fc1.weight.T.contiguous().T)
    loaded = load_bundle(save_bundle(tmp_path / "tied", model, "medformer_nano", SMALL, {}, {})).backbone
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())


def test_a_bundle_replaces_the_one_before_it(folder: Path) -> None:
    with torch.no_grad():
        (other := small()).query.fill_(7.0)
    save_bundle(folder, other, "medformer_nano", SMALL, {}, {})
    assert torch.equal(load_bundle(folder).backbone.query, torch.full((1, 32), 7.0))
    assert [path.name for path in folder.parent.iterdir()] == ["bundle"]


@pytest.mark.parametrize("name", FILES[:-1])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name} is missing"):
        load_bundle(folder)


@pytest.mark.parametrize("content", ["{", "[]", "\x00"])
def test_damaged_json_is_named(folder: Path, content: str) -> None:
    (folder / "provenance.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"provenance\.json"):
        load_bundle(folder)


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.5, 0.999])
def test_truncated_weights_are_an_error_of_ours(folder: Path, kept: float) -> None:
    path = folder / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: not a readable safetensors file"):
        load_bundle(folder)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"query": None}, "tensor query is missing"),
        ({"intruder": torch.zeros(2)}, "tensor intruder is not in the model"),
        ({"query": torch.zeros(1, 64)}, r"tensor query has shape \(1, 64\), the model expects \(1, 32\)"),
    ],
)
def test_tensors_that_do_not_fit_are_named(folder: Path, changes: dict[str, Any], message: str) -> None:
    change_weights(folder, changes)
    with pytest.raises(CheckpointError, match=message):
        load_bundle(folder)


def test_weights_of_another_size_are_named(folder: Path) -> None:
    change_config(folder, architecture="medformer_tiny", model_args={})
    with pytest.raises(CheckpointError, match="the file is of another model"):
        load_bundle(folder)


@pytest.mark.parametrize("architecture", ["resnet81", "medformer_huge", None])
def test_an_unknown_architecture_is_named(folder: Path, architecture: str | None) -> None:
    change_config(folder, architecture=architecture)
    with pytest.raises(CheckpointError, match=f"unknown architecture {architecture!r}"):
        load_bundle(folder)


@pytest.mark.parametrize(
    "model_args",
    [
        {"checkpoint_path": "evil.pt"},
        {"pretrained": True},
        {"num_classes": 3},
        {"embed_dm": 1},
        [],
        {"num_heads": 0},
        {"embed_dim": -4},
    ],
)
def test_arguments_the_backbone_does_not_take_are_refused(folder: Path, model_args: Any) -> None:
    change_config(folder, model_args=model_args)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_bundle(folder)


@pytest.mark.parametrize("version", [3, "3"])
def test_a_bundle_of_a_newer_format_is_told_and_one_without_a_number_is_the_first(folder: Path, version: Any) -> None:
    assert json.loads((folder / "config.json").read_text())["format_version"] == 2
    change_config(folder, format_version=version)
    told = f"a bundle of format version {version}, made by a newer Medformer; this one reads up to 2"
    with pytest.raises(CheckpointError, match=told):
        load_bundle(folder)
    document = json.loads((folder / "config.json").read_text())
    del document["format_version"]
    (folder / "config.json").write_text(json.dumps(document))
    assert load_bundle(folder).provenance == PROVENANCE


def test_a_disk_that_refuses_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(MedformerError, match="cannot write"):
        save_bundle(tmp_path / "file" / "bundle", small(), "medformer_nano", SMALL, {}, {})
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
