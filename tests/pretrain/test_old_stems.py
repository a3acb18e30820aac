"""What was saved before the default stem was another one opens as what it was, or says in one line what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from data_shards.support.errors import CheckpointError, ConfigError
from finetune.backbones import fresh_twin, open_backbone
from pretrain.backbone import Medformer
from pretrain.bundle import load_bundle, save_bundle
from pretrain.config import ModelConfig, run_digest
from pretrain.engine import run
from pretrain.module import create_backbone
from tests.pretrain.runs import GroupRuntime
from tests.pretrain.test_backbone import SMALL, images, small
from tests.pretrain.test_faults import newest, reseal, short
from tests.pretrain.test_volumes import trained_in_depth, volumes

STEM = {
    f"adapter.stem.{name}"
    for name in (
        "first.weight", "first.bias", "first.depth", "stages.0.weight", "stages.0.bias", "stages.2.weight",
        "stages.2.bias", "stages.2.depth", "stages.3.weight", "stages.3.bias", "stages.5.weight", "stages.5.bias",
        "stages.5.depth", "stages.6.weight", "stages.6.bias",
    )
}  # fmt: skip
"""Tensors of the stem in a bundle of the first format."""


@pytest.fixture
def network() -> Medformer:
    return trained_in_depth(small(stem="conv", stride=4))


@pytest.fixture
def old(network: Medformer, tmp_path: Path) -> Path:
    """As the first format wrote it: nothing of the stem in the arguments."""
    folder = tmp_path / "old"
    folder.mkdir()
    tensors = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert {name for name in tensors if name.startswith("adapter.stem.")} == STEM
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architecture": "medformer_nano",
        "format_version": 1,
        "model_args": SMALL,
        "num_classes": 0,
        "num_features": 32,
        "pretrained_cfg": {
            "classifier": "head", "crop_pct": 1.0, "custom_load": False, "first_conv": "adapter.stem.first",
            "input_size": [3, 28, 28], "interpolation": "bilinear", "mean": [0.5, 0.5, 0.5], "num_classes": 0,
            "std": [0.5, 0.5, 0.5],
        },
    }  # fmt: skip
    for name, content in (("config", config), ("provenance", {}), ("metrics", {})):
        (folder / f"{name}.json").write_text(json.dumps(content))
    (folder / "README.md").write_text("# medformer_nano\n")
    return folder


def equal(first: Medformer, second: Medformer) -> None:
    for batch in (images(2), volumes(2, 3)):
        torch.testing.assert_close(first.features(batch).embedding_BD, second.features(batch).embedding_BD)


def test_an_old_bundle_opens_everywhere_as_what_it_was(network: Medformer, old: Path) -> None:
    bundle = load_bundle(old)
    equal(bundle.backbone, network)
    equal(open_backbone(old, 0).module, network)
    equal(timm.create_model(f"local-dir:{old}", pretrained=True, num_classes=3).eval(), network)
    assert fresh_twin(bundle)(1).stem_args == {"stem": "conv", "stride": 4}


def test_what_is_made_of_an_old_bundle_names_its_stem(old: Path, tmp_path: Path) -> None:
    bundle = load_bundle(old)
    folder = save_bundle(tmp_path / "new", bundle.backbone, "medformer_nano", bundle.config["model_args"], {}, {})
    config = json.loads((folder / "config.json").read_text())
    assert config["model_args"] == {**SMALL, "stem": "conv", "stride": 4} and config["format_version"] == 2
    equal(load_bundle(folder).backbone, bundle.backbone)


@pytest.mark.parametrize("name, width", [("medformer_tiny", None), ("medformer_base", 32)])
def test_old_bundles_of_every_size_have_the_stem_of_their_size(name: str, width: int | None, tmp_path: Path) -> None:
    """Arguments as they were then, on a network of little depth."""
    args: dict[str, Any] = {"embed_dim": 32, "depth": 1, "num_heads": 2, "latents": 2}
    stride = 4 if width is None else 8
    model = timm.create_model(name, num_classes=0, stem="conv", stride=stride, stem_width=width, **args).eval()
    folder = save_bundle(tmp_path / "bundle", model, name, args, {}, {})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"format_version": 1, "model_args": args}))
    found = load_bundle(folder).backbone
    assert found.stride == stride
    equal(found, model)


def test_old_weights_alone_say_which_arguments_they_are_for(network: Medformer, old: Path) -> None:
    overlay = {"file": str(old / "model.safetensors")}
    with pytest.raises(CheckpointError, match="the file is of another model, .* pass stem='conv', stride=4$"):
        timm.create_model("medformer_nano", pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay, **SMALL)
    found = timm.create_model(
        "medformer_nano", pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay, stem="conv", stride=4, **SMALL
    )
    equal(found.eval(), network)


def test_going_on_from_an_old_bundle_asks_for_its_stem(network: Medformer, old: Path) -> None:
    with pytest.raises(
        ConfigError, match="'stem': 'conv', 'stride': 4}.*'stem': 'hmlp', 'stride': 4}; they must agree"
    ):
        create_backbone(ModelConfig(kwargs=SMALL, init_from=old))
    equal(create_backbone(ModelConfig(kwargs={**SMALL, "stem": "conv", "stride": 4}, init_from=old)).eval(), network)


KWARGS = {"embed_dim": 32, "depth": 1, "num_heads": 2, "latents": 2, "latents_per_entry": 1}


@pytest.mark.usefixtures("process_group")
def test_a_run_that_began_with_the_old_default_goes_on_once_that_is_named(shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    named = short(shards, out, model={"kwargs": {**KWARGS, "stem": "conv", "stride": 4}})
    assert run(named, GroupRuntime(stop_after=3)) is None
    silent = short(shards, out, model={"kwargs": KWARGS})

    def as_it_was(state: dict[str, Any]) -> None:
        assert state.pop("stem") == {"stem": "conv", "stride": 4}
        state["config_sha256"] = run_digest(silent)

    reseal(newest(out), as_it_was)
    with pytest.raises(CheckpointError, match=r"go on with model\.kwargs\.stem=conv model\.kwargs\.stride=4$"):
        run(silent, GroupRuntime(), resume=True)
    other = short(shards, out, seed=4, model=named.model.model_dump())
    with pytest.raises(CheckpointError, match="another configuration"):
        run(other, GroupRuntime(), resume=True)
    assert run(named, GroupRuntime(), resume=True) == out / "bundle"
