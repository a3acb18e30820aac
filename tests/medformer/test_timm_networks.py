"""A network of timm through every command: shards, plan, pretrain, finetune, predict, explain, and a local registry."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import timm
from safetensors.numpy import load_file

from medformer.cli import main
from tests.finetune.samples import blobs
from tests.pretrain.foreign_samples import RESNET, VIT
from tests.pretrain.runs import Run, document, write_document

NETWORKS = {"resnet18": RESNET, "vit_tiny_patch16_224": VIT}


@dataclass
class Made:
    """Pictures of 28 pixels, their shards, and what a short pretraining on these has left."""

    folder: Path
    run: Run
    architecture: str

    @property
    def bundle(self) -> Path:
        return self.run.out / "bundle"

    @property
    def images(self) -> list[str]:
        return ["--data", str(self.folder / "images"), "--csv", str(self.folder / "table.csv")]


@pytest.fixture(scope="module", params=["resnet18", pytest.param("vit_tiny_patch16_224", marks=pytest.mark.slow)])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "images").mkdir()
    for index, pixels in enumerate(blobs(40, side=28).images):
        PIL.Image.fromarray(pixels[0]).save(folder / "images" / f"{index:02}.png")
    rows = [f"{index:02}.png,{'ab'[index % 2]},s{index},{'train' if index < 28 else 'test'}" for index in range(40)]
    (folder / "table.csv").write_text("\n".join(["path,label,subject,split", *rows]) + "\n")
    words = [f"root={folder / 'images'}", f"table={folder / 'table.csv'}", "organ=chest", "modality=xray", "name=blobs"]
    assert main(["shards", "build", "images", *words, "--out", str(folder / "shards")]) == 0
    content = document(
        folder / "shards" / "blobs",
        folder / "run",
        model={"name": f"timm:{request.param}", "kwargs": NETWORKS[request.param]},
        objectives={"simclr": {"hidden": 16, "out": 8}},
        schedule={"max_steps": 3},
        probes={"datasets": [{"path": str(folder / "shards" / "blobs"), "score": "train"}]},
    )
    content["data"]["batch_size"] = 14
    run = Run(write_document(folder / "run.yaml", content), folder / "run")
    run.start().expect(0)
    return Made(folder, run, request.param)


def test_it_is_planned_and_its_bundle_is_one_of_timms(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["plan", str(made.run.config), "--json", "--gpus", "1"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["steps"] == 3
    theirs = timm.create_model(f"local-dir:{made.bundle}", pretrained=True)
    weights = load_file(made.bundle / "model.safetensors")
    assert set(weights) == set(theirs.state_dict())
    for name, tensor in theirs.state_dict().items():
        np.testing.assert_array_equal(weights[name], tensor.numpy())
    assert 0 <= made.run.metrics()[-1]["probe/blobs/knn_auc"] <= 1


def test_it_is_fine_tuned_predicts_and_is_explained(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["finetune", "--model", str(made.bundle), *made.images, "--out", str(tmp_path / "tuned")]
    assert main([*words, "--strategy", "full", "--set", "max_steps=10", "calibrate=false"]) == 0
    assert "reads pixels alone: it is not told organ, modality, task or spacing" in capsys.readouterr().out
    assert main(["predict", str(tmp_path / "tuned"), *made.images, "--out", str(tmp_path / "told.csv")]) == 0
    with open(tmp_path / "told.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    told = np.array([[float(row["p(a)"]), float(row["p(b)"])] for row in rows])
    assert len(rows) == 40 and np.allclose(told.sum(axis=1), 1, atol=1e-5)
    words = ["explain", str(tmp_path / "tuned"), *made.images, "--cases", "row 2", "--out", str(tmp_path / "maps")]
    # Of 28 pixels a ResNet-18 makes a single cell, and what this ViT says is not made of its last tokens.
    assert main([*words, "--method", "grad_cam"]) == 2
    assert "; use occlusion" in capsys.readouterr().err and not (tmp_path / "maps").exists()
    assert main([*words, "--method", "occlusion", "--set", "options.block=7"]) == 0
    with open(tmp_path / "maps" / "maps.csv", newline="") as file:
        assert [row["method"] for row in csv.DictReader(file)] == ["occlusion"]


def test_it_goes_through_the_registry_without_a_server(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("mlflow", reason="MLflow is not installed (extra: registry)")
    store = ["--tracking-uri", f"sqlite:///{tmp_path / 'store.db'}"]
    assert main(["models", "publish", str(made.bundle), "--name", "other", "--alias", "candidate", *store]) == 0
    assert main(["models", "promote", "other@candidate", "champion", *store]) == 0
    capsys.readouterr()
    assert main(["models", "show", "other", *store]) == 0
    assert made.architecture in capsys.readouterr().out
    assert main(["models", "pull", "other@champion", "--out", str(tmp_path / "pulled"), *store]) == 0
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "pulled" / name).read_bytes() == (made.bundle / name).read_bytes()
    for model, out in ((str(made.bundle), "a.npz"), ("other@champion", "b.npz")):
        assert main(["embed", model, *made.images, "--out", str(tmp_path / out), *store]) == 0
    first, second = (np.load(tmp_path / name)["features"] for name in ("a.npz", "b.npz"))
    np.testing.assert_array_equal(first, second)
    assert len(first) == 40 and np.isfinite(first).all() and first.std(axis=0).max() > 0
