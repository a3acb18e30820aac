"""The released network: small, whole, without a path of the machine that made it, and a start for further training."""

from __future__ import annotations

import json
from pathlib import Path

import timm
import torch
from safetensors.torch import load_file

from pretrain.backbone import Medformer
from pretrain.bundle import load_bundle
from pretrain.config import ModelConfig
from pretrain.module import create_backbone

ROOT = Path(__file__).resolve().parent.parent
NANO = ROOT / "release" / "medformer-nano"


def test_it_is_small_and_names_no_machine() -> None:
    assert sum(path.stat().st_size for path in NANO.iterdir()) < 20_000_000
    provenance = json.loads((NANO / "provenance.json").read_text())
    assert {each["split"] for each in provenance["datasets"]} == {"train"}
    for path in (*NANO.glob("*.json"), NANO / "README.md"):
        for word in path.read_text().replace('"', " ").split():
            assert not word.startswith(("/", "~", "file:")), f"{path.name}: {word}"


def test_it_loads_into_timm_strictly_and_reads_planes_and_volumes() -> None:
    bundle = load_bundle(NANO)
    network = timm.create_model(bundle.config["architecture"], **bundle.config["model_args"]).eval()
    network.load_state_dict(load_file(NANO / "model.safetensors"), strict=True)
    assert isinstance(bundle.backbone, Medformer)
    for shape in ((2, 1, 28, 28), (2, 3, 28, 28), (2, 1, 28, 28, 28)):
        images = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
        with torch.no_grad():
            found = bundle.backbone.features(images).embedding_BD
            torch.testing.assert_close(found, network.features(images).embedding_BD)
        assert found.isfinite().all() and (found[0] - found[1]).abs().max() > 0.01


def test_a_pretraining_goes_on_from_it() -> None:
    backbone = create_backbone(ModelConfig(init_from=NANO))
    kept = load_file(NANO / "model.safetensors")
    assert all(torch.equal(tensor, kept[name]) for name, tensor in backbone.network.state_dict().items())
