"""``medformer evaluate`` reads larger volumes in windows where a model was trained on crops, and all else whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_shards.sources.phantoms import Phantoms
from data_shards.support.documents import parse
from data_shards.writing.writer import write_dataset
from finetune.config import FinetuneConfig
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


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "@whole", "--data", "@volumes", "--overlap", "0.25"],
        ["evaluate", "@whole", "--data", "@volumes", "--set", "overlap=0.25"],
        ["finetune", "--model", "@whole", "--data", "nowhere", "--set", "overlap=0.25"],
        ["finetune", "--model", "@cropped", "--data", "@planes", "--set", "overlap=0.25"],
        ["finetune", "--model", "@cropped", "--data", "@volumes", "--set", "overlap=0.25", "strategy=full"],
        ["finetune", "--model", "@cropped", "--data", "@volumes", "--set", "overlap=0.25", "window=none"],
        ["embed", "@whole", "--data", "nowhere", "--overlap", "0.25"],
        ["embed", "@cropped", "--data", "@planes", "--overlap", "0.25"],
    ],
)
def test_an_overlap_without_windows_is_refused_by_every_command(
    words: list[str], made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([word.replace("@", f"{made}/") for word in words] + ["--out", str(tmp_path / "o.npz")]) == 2
    error = capsys.readouterr().err
    assert "overlap is of windows, and there are none: give 'window', too, or leave it out\n" in error
    assert len(error.splitlines()) == 1 and not list(tmp_path.iterdir())


@pytest.mark.parametrize("data", ["volumes", "planes"])
def test_embed_and_finetune_read_in_the_windows_that_evaluate_reads_in(
    data: str, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = data == "volumes"
    words = ["--data", str(made / data), "--out"]
    asked = {"own": ("cropped", []), "asked": ("whole", ["window=8"]), "none": ("cropped", ["window=none"])}
    features, scores, records = {}, {}, {}
    for name, (model, extra) in asked.items():
        chosen = ["--set", *extra] if extra else []
        out = tmp_path / f"{name}.npz"
        assert main(["embed", str(made / model), *words, str(out), *chosen]) == 0
        assert ("in windows of 8 x 8 x 8 voxels" in capsys.readouterr().out) == (cut and name == "own")
        features[name] = np.load(out)["features"]
        fit = ["finetune", "--model", str(made / model), "--per-class", "3", *words, str(tmp_path / name), *chosen]
        assert main([*fit, "--set", "head_options.reads=embedding"]) == 0
        assert ("as it was trained on crops; window=none" in capsys.readouterr().out) == (cut and name == "own")
        records[name] = json.loads((tmp_path / name / "classifier" / "classifier.json").read_text())["params"]["window"]
        scores[name] = json.loads((tmp_path / name / "metrics.json").read_text())["scores"]
    assert records == {"own": [8, 8, 8] if cut else None, "asked": [8], "none": None}
    if cut:
        np.testing.assert_array_equal(features["own"], features["asked"])
        assert scores["own"] == scores["asked"]
    else:
        np.testing.assert_array_equal(features["own"], features["none"])
    assert np.abs(features["asked"] - features["none"]).max() > 1e-3


def test_what_a_record_says_of_windows_is_taken_back(made: Path) -> None:
    given = {"model": "m", "data": "d", "window": None, "overlap": 0.5}
    assert not parse(FinetuneConfig, given, "config.yaml").lone_overlap


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["timm:resnt18"], "timm has no model 'resnt18'; the nearest are resnet18"),
        (["timm:vit_tiny_patch16_224,embedding=latents"], "no argument 'embedding'; did you mean 'embed_dim'?"),
        (["medformer_nanoo"], "medformer_nanoo: neither the folder of a model bundle nor a model of the registry"),
        (["medformer_nano", "--heads", "liner"], "unknown head 'liner'; did you mean 'linear'?"),
        (["medformer_nano", "--strategies", "froze"], "unknown strategy 'froze'; did you mean 'frozen'?"),
    ],
)
def test_what_is_wrong_with_a_model_or_a_name_is_told_before_data_are_looked_for(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", *words, "--data", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert said in error and len(error.splitlines()) == 1, error
    assert not list(tmp_path.iterdir())


def test_a_rule_of_a_model_that_has_none_is_refused(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", "medformer_nano", "--data", str(made / "planes"), "--set", "intensity=model"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 2
    assert "medformer_nano was trained with nothing that is known" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
