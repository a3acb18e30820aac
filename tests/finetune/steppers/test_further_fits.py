"""Steppers beyond DBA in whole fits: heads and strategies, documents, and what is told of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_shards.support.errors import ConfigError
from medformer.cli import main
from tests.finetune.samples import blobs, of_target, solid_blobs
from tests.finetune.steppers.fits import fit_document, fitted

EVERYTHING: dict[str, dict[str, Any]] = {
    "agreement": {"threshold": -1.0},
    "norm_test": {"max_batch": 8},
    "importance": {"threshold": 100.0},
    "variance_adapted": {"strength": 0.0},
}
FITS = [
    *[(stepper, strategy, "attention") for stepper in EVERYTHING for strategy in ("frozen", "full")],
    *[(stepper, "frozen", head) for stepper in EVERYTHING for head in ("linear", "mil", "spd")],
    ("agreement", "low_rank", "linear"),
    ("variance_adapted", "two_stage", "linear"),
]


@pytest.mark.parametrize(("stepper", "strategy", "head"), FITS)
def test_heads_and_strategies_are_fitted(stepper: str, strategy: str, head: str) -> None:
    chosen = fitted(stepper, blobs(12), strategy, head).record_.chosen
    assert 0 < chosen["distinct_chosen"] <= chosen["distinct_seen"] <= 12


@pytest.mark.parametrize("strategy", ["frozen", "full"])
@pytest.mark.parametrize("stepper", list(EVERYTHING))
def test_with_nothing_chosen_it_is_the_plain_fit_bit_for_bit(stepper: str, strategy: str) -> None:
    test = blobs(6, seed=3)
    plain = fitted("plain", blobs(12), strategy, "attention").predict_proba(test)
    options = {"stepper_options": EVERYTHING[stepper]}
    same = fitted(stepper, blobs(12), strategy, "attention", **options).predict_proba(test)
    np.testing.assert_array_equal(same, plain)


def test_volumes_and_targets() -> None:
    fitted("agreement", solid_blobs(8), "full", "linear")
    for stepper in EVERYTHING:
        for task in ("ordinal", "multilabel", "regression"):
            fitted(stepper, of_target(task, 12), "frozen", "attention")


@pytest.mark.parametrize(
    ("stepper", "options", "said"),
    [
        ("agreement", {"mixup": 0.3}, "agrees with neither; leave mixup at 0"),
        ("importance", {"mixup": 0.3}, "draws single cases, and a mixture is of two"),
        ("norm_test", {"batch_size": 1}, "one case has no variance"),
        ("variance_adapted", {"batch_size": 1}, "one case has no variance"),
        ("norm_test", {"stepper_options": {"teta": 1}}, "did you mean 'theta'"),
    ],
)
def test_mistakes_are_found_before_anything_is_computed(stepper: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        fitted(stepper, blobs(12), "full", "linear", **options)


def test_a_document_names_the_stepper(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = fit_document(tmp_path, "batch_size: 4\nstepper: norm_test\nstepper_options: {theta: 0.1}\n")
    assert main(["finetune", "--config", str(document), "--out", str(tmp_path / "out")]) == 0
    chosen = json.loads((tmp_path / "out" / "metrics.json").read_text())["fit"]["chosen"]
    assert chosen["distinct_seen"] == 16 and chosen["batches"]["batch_size"][0] == 4
    assert "16 different cases were drawn in training" in capsys.readouterr().out
    words = ["finetune", "--config", str(document), "--out", str(tmp_path / "x"), "--set"]
    assert main([*words, "stepper=agrement"]) == 2
    assert "unknown stepper 'agrement'; did you mean 'agreement'" in capsys.readouterr().err
