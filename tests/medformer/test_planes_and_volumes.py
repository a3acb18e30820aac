"""R8 by commands alone: a model of RGB planes opens on grey volumes, and the other way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml

from data_shards.sources.phantoms import Phantoms
from data_shards.writing.writer import write_dataset
from finetune.classifier.estimator import FewLabelClassifier
from medformer.cli import main
from pretrain.bundle import load_bundle
from tests.data_shards.made_sources import Coloured
from tests.finetune.samples import TINY
from tests.pretrain.runs import Run, document, write_document

SETS = {
    "planes": Coloured(size=20, subjects=80),
    "volumes": Phantoms("phantom-brain-mri", size=12, subjects=80, images_per_subject=1),
}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("shards")
    for name, source in SETS.items():
        write_dataset(source, folder / name)
    return {name: folder / name for name in SETS}


@pytest.fixture(scope="module")
def bundles(shards: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two steps of pretraining on each set."""
    folder = tmp_path_factory.mktemp("bundles")
    found = {}
    for name, data in shards.items():
        content = document(data, folder / name, schedule={"max_steps": 2}, model={"kwargs": TINY})
        run = Run(write_document(folder / f"{name}.yaml", content), folder / name)
        run.start().expect(0)
        found[name] = run.out / "bundle"
    return found


@pytest.mark.parametrize(("learned", "used"), [("planes", "volumes"), ("volumes", "planes")])
def test_what_was_pretrained_on_one_is_evaluated_on_the_other(
    shards: dict[str, Path], bundles: dict[str, Path], learned: str, used: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert main(["evaluate", str(bundles[learned]), "--data", str(shards[used]), "--out", str(out)]) == 0
    rows = json.loads((out / "evaluation.json").read_text())["rows"]
    assert [row["representation"] for row in rows] == ["raw pixels"] * 2 + ["random network"] * 2 + ["pretrained"] * 2
    assert {row["dataset"] for row in rows} == {SETS[used].card.name}


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["frozen", "full"])
@pytest.mark.parametrize(("learned", "used"), [("planes", "volumes"), ("volumes", "planes")])
def test_what_was_pretrained_on_one_is_fine_tuned_on_the_other(
    shards: dict[str, Path], bundles: dict[str, Path], learned: str, used: str, strategy: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = ["finetune", "--model", str(bundles[learned]), "--data", str(shards[used]), "--out", str(out)]
    quick = ["--set", "max_steps=4"] if strategy == "full" else []
    assert main([*words, "--strategy", strategy, "--per-class", "4", *quick]) == 0
    assert json.loads((out / "metrics.json").read_text())["dataset"] == SETS[used].card.name
    classifier = FewLabelClassifier.load(out / "classifier")
    before, after = load_bundle(bundles[learned]).backbone, classifier.predictor_.members[0].backbone
    first, then = (network.adapter.stem.first.depth.detach() for network in (before, after))
    if strategy == "frozen":
        assert torch.equal(first, then)
    elif used == "planes":  # the depth of a kernel learns from volumes alone: from planes it has nothing but its decay
        shrunk = float((first * then).sum() / first.square().sum())
        assert 0.9 < shrunk <= 1
        torch.testing.assert_close(then, first * shrunk, rtol=1e-4, atol=0)
    else:
        assert not torch.allclose(first, then)


def test_an_archive_of_volumes_is_fine_tuned_on(bundles: dict[str, Path], shared_data: Path, tmp_path: Path) -> None:
    archive, out = shared_data / "medmnist" / "adrenalmnist3d.npz", tmp_path / "out"
    words = ["finetune", "--model", str(bundles["planes"]), "--data", str(archive), "--per-class", "5"]
    assert main([*words, "--out", str(out)]) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["official"] and metrics["scores"]["test"]["images"] == 298
    assert yaml.safe_load((out / "config.yaml").read_text())["data"] == str(archive)
