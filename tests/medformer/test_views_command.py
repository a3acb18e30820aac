"""``medformer views``: the contact sheet of a run, and the rules with their reasons."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import yaml

from data_shards.sources.phantoms import Phantoms
from data_shards.writing.writer import write_dataset
from medformer.cli import main


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("views")
    for name in ("phantom-knee-mri-2d", "phantom-brain-mri"):
        write_dataset(Phantoms(name, subjects=40, images_per_subject=1), folder / name)
    content = {
        "out": str(folder / "out"),
        "data": {
            "datasets": [
                {"path": str(folder / "phantom-knee-mri-2d")},
                {"path": str(folder / "phantom-brain-mri"), "views": {"bias_field": {}, "flip": None}},
            ],
            "batch_size": 8,
        },
        "model": {"name": "medformer_nano"},
        "objectives": {"simclr": {}},
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_sheet_shows_every_transform_and_both_views(document: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = document.parent / "sheet.png"
    assert main(["views", "show", str(document), "--sheet", str(sheet)]) == 0
    assert "policy: nothing is changed" in capsys.readouterr().out
    pixels = np.asarray(PIL.Image.open(sheet).convert("L"))
    assert pixels.shape[1] > 900 and (pixels < 128).mean() > 0.05
    assert main(["views", "show", str(document), "--sheet", str(sheet)]) == 2
    assert "exists" in capsys.readouterr().err
    words = ["views", "show", str(document), "views.solarise.probability=0.1", "--sheet", str(sheet), "--overwrite"]
    assert main(words) == 2
    assert "views.solarise is not for such images" in capsys.readouterr().err
    assert main([*words, "views.policy=null"]) == 0
    assert "policy: none is asked" in capsys.readouterr().out


def test_rules_are_printed_for_the_kinds_that_are_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["views", "policy", "chest", "xray"]) == 0
    out = capsys.readouterr().out
    assert "chest (of ct, mri, pet, xray): flip.horizontal: at most 0" in out and "the heart lies to the left" in out
    assert "xray: colour: never; stain: never" in out and "mri:" not in out
    assert main(["views", "policy", "chest"]) == 0
    assert capsys.readouterr().out.startswith("chest")
    assert main(["views", "policy", "chest", "histology"]) == 0
    assert "flip" not in capsys.readouterr().out
    assert main(["views", "policy"]) == 0
    assert len(capsys.readouterr().out.splitlines()) > 80
    assert main(["views", "policy", "brian"]) == 2
    assert "did you mean 'brain'" in capsys.readouterr().err
