"""``medformer evaluate`` reads larger volumes in windows where a model was trained on crops, and all else whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data_shards.sources.phantoms import Phantoms
from data_shards.writing.writer import write_dataset
from medformer.cli import main
from pretrain.bundle import load_bundle, save_bundle
from tests.finetune.samples import TINY, tiny_backbone

SETS = {"volumes": ("phantom-brain-mri", 12), "planes": ("phantom-knee-mri-2d", 20)}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards, and one network in two bundles, of which one says that it was trained on crops of 10^3."""
    folder = tmp_path_factory.mktemp("made")
    for name, (source, size) in SETS.items():
        write_dataset(Phantoms(source, size=size, subjects=30, images_per_subject=1), folder / name)
    crop = {"config": {"data": {"crop": {"size": [10], "per_volume": 2}}}}
    for name, provenance in (("whole", {}), ("cropped", crop)):
        save_bundle(folder / name, tiny_backbone(), "medformer_nano", TINY, provenance, {})
    return folder


def evaluated(made: Path, model: str, data: str, out: Path, *words: str) -> dict[str, Any]:
    """Scores of every row, raw pixels left out, and what of the comparison is of a frozen network."""
    assert main(["evaluate", str(made / model), "--data", str(made / data), "--out", str(out), *words]) == 0
    rows = json.loads((out / "evaluation.json").read_text())["rows"]
    found = {
        (row["representation"], row["probe"]): row["scores"] for row in rows if row["representation"] != "raw pixels"
    }
    if (out / "comparison.json").is_file():
        rows = json.loads((out / "comparison.json").read_text())["rows"]
        found |= {(row["arm"], row["seed"]): row["scores"] for row in rows if "frozen" in row["arm"]}
    return found


def test_a_model_of_crops_is_probed_and_compared_in_windows_of_their_size(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert load_bundle(made / "cropped").crop == (10, 10, 10) and load_bundle(made / "whole").crop is None
    few = ["--per-class", "4", "--strategies", "frozen"]
    by_itself = evaluated(made, "cropped", "volumes", tmp_path / "a", *few)
    said = "cropped reads larger volumes in windows of 8 x 8 x 8 voxels, as it was trained on crops"
    assert said in capsys.readouterr().err
    asked_for = evaluated(made, "whole", "volumes", tmp_path / "b", *few, "--window", "8")
    assert by_itself == asked_for and len(by_itself) == 4 + 2 * 3
    whole = evaluated(made, "whole", "volumes", tmp_path / "c", *few)
    assert all(whole[key] != by_itself[key] for key in (("pretrained", "linear"), ("random network", "linear")))
    assert any(whole[key] != by_itself[key] for key in by_itself if key[0] == "pretrained, frozen")
    assert "in windows" not in capsys.readouterr().err


def test_planes_are_read_whole_by_a_model_of_crops(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [evaluated(made, model, "planes", tmp_path / model) for model in ("cropped", "whole")]
    assert found[0] == found[1] and "in windows" not in capsys.readouterr().err
