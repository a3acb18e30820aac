"""Keys that are looked for in a pretraining document and stand elsewhere: one line says where."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pretrain.__main__ import main
from tests.pretrain.runs import document, write_document

OF_SHARDS = "is an option of `medformer shards build`: prepare.spacing_mm, prepare.intensity.window, ..."
RULE = "is said of each dataset: data.datasets.0.intensity; prepare.intensity.window of `medformer shards build` makes"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("intensity.window=[40,400]", f"unknown key 'intensity'; the rule by which stored values are read {RULE}"),
        ("data.intensity=z-score", f"unknown key 'data.intensity'; the rule by which stored values are read {RULE}"),
        ("prepare.intensity.window=[40,400]", f"unknown key 'prepare'; what is done .* {OF_SHARDS}"),
        ("data.datasets.0.prepare.size=64", f"unknown key 'data.datasets.0.prepare'; what is done .* {OF_SHARDS}"),
        ("data.datasets.0.stored=int16", "'data.datasets.0.stored'; the dtype .* stored of `medformer shards build`"),
        ("crop.size=96", "unknown key 'crop'; crops are of all volumes of the run alike: data.crop"),
        ("data.datasets.0.intensity=zscore", "no rule and no window is called 'zscore'; did you mean 'z-score'"),
        (
            "data.datasets.0.intensity.window=[40,400]",
            "window makes 8 bits of values before they are stored: prepare.intensity.window of `medformer shards "
            "build`; as a rule for values that are kept it is written .{center: 40, width: 400}.",
        ),
        ("data.crops.size=96", "unknown key 'data.crops'; did you mean 'crop'"),
    ],
)
def test_a_key_that_stands_elsewhere_is_pointed_to_in_one_line(
    override: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_document(tmp_path / "run.yaml", document(tmp_path / "shards", tmp_path / "out"))
    assert main([str(path), override]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and re.search(said, error), error
