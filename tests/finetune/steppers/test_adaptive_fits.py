"""DBA and EDBA in whole fits: every head and strategy, documents, and what is told of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from data_shards.support.errors import ConfigError
from finetune.classifier.estimator import FewLabelClassifier
from medformer.cli import main
from tests.finetune.samples import blobs, of_target, solid_blobs, tiny_backbone
from tests.finetune.steppers.fits import HEADS, fit_document, fitted

STRATEGIES = ("frozen", "two_stage", "low_rank", "full", "selective")
FITS = [
    *[("dba", strategy, head) for head in HEADS for strategy in ("frozen", "full")],
    *[("edba", "frozen", head) for head in HEADS],
    *[(stepper, strategy, "attention") for stepper in ("dba", "edba") for strategy in STRATEGIES[1:]],
]


@pytest.mark.parametrize(("stepper", "strategy", "head"), list(dict.fromkeys(FITS)))
def test_every_head_and_strategy_is_fitted(stepper: str, strategy: str, head: str) -> None:
    chosen = fitted(stepper, blobs(12), strategy, head).record_.chosen
    assert 0 < chosen["distinct_chosen"] <= chosen["distinct_seen"] <= 12
    layers = chosen["chosen_by_layer"]
    assert all(1 <= mean <= 8 for mean in layers.values())
    if stepper == "dba":
        deep = any(name.startswith("backbone") for name in layers)
        assert deep == (strategy != "frozen") and min(layers.values()) < 8


@pytest.mark.parametrize("strategy", ["frozen", "full"])
@pytest.mark.parametrize("stepper", ["dba", "edba"])
def test_selecting_everything_is_the_plain_fit_bit_for_bit(stepper: str, strategy: str) -> None:
    test = blobs(6, seed=3)
    plain = fitted("plain", blobs(12), strategy, "attention").predict_proba(test)
    options = {"stepper_options": {"min_batch": 8}}
    same = fitted(stepper, blobs(12), strategy, "attention", **options).predict_proba(test)
    np.testing.assert_array_equal(same, plain)
    other = fitted(stepper, blobs(12), strategy, "attention").predict_proba(test)
    assert np.abs(other - plain).max() > 1e-7


def test_volumes_targets_and_mixtures() -> None:
    fitted("dba", solid_blobs(8), "full", "linear", stepper_options={"selection": "variance_norm"})
    fitted("edba", of_target("ordinal", 12), "frozen", "attention")
    fitted("edba", of_target("multilabel", 12), "frozen", "attention")
    fitted("dba", of_target("regression", 12), "full", "attention")
    fitted("dba", blobs(12), "full", "linear", mixup=0.4)


def test_mistakes_are_found_before_anything_is_computed() -> None:
    for stepper, options, said in (
        ("dba", {"stepper_options": {"stride": 9}}, "stride 9 is larger than the batch of 8"),
        ("edba", {"stepper_options": {"min_batch": 6, "max_batch": 5}}, "min_batch 6 is above max_batch 5"),
        ("dba", {"stepper_options": {"selection": "al"}}, "unknown selection 'al'"),
        ("edba", {"mixup": 0.3}, "leave mixup at 0"),
    ):
        with pytest.raises(ConfigError, match=said):
            fitted(stepper, blobs(12), "full", "linear", **options)
    with pytest.raises(ConfigError, match="a regression target has no margin"):
        fitted("edba", of_target("regression", 12), "frozen", "attention")
    compared = {"head": "mil", "head_options": {"ranking": 0.3, "ranking_above": "negatives"}}
    made = FewLabelClassifier(tiny_backbone(), stepper="dba", max_steps=2, batch_size=8, **compared)
    with pytest.raises(ConfigError, match="head mil: what its options add .* of other cases of the batch"):
        made.fit(blobs(12))


def test_a_document_names_the_stepper_and_the_record_of_the_run_has_sizes_and_distinct_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = fit_document(
        tmp_path,
        "batch_size: 8\nstepper: dba\nstepper_options: {selection: variance_norm, stride: 2, min_batch: 4}\n",
    )
    assert main(["finetune", "--config", str(document), "--out", str(tmp_path / "out")]) == 0
    chosen = json.loads((tmp_path / "out" / "metrics.json").read_text())["fit"]["chosen"]
    assert chosen["distinct_chosen"] <= chosen["distinct_seen"] == 16
    said = f"16 different cases were drawn in training, {chosen['distinct_chosen']} of them chosen"
    assert said in capsys.readouterr().out
    assert chosen["batches"]["steps"][0] == 2 and chosen["batches"]["batch_size"][0] == 8
    words = ["finetune", "--config", str(document), "--out", str(tmp_path / "x"), "--set"]
    assert main([*words, "stepper_options.stride=9"]) == 2
    assert "stride 9 is larger than the batch of 8" in capsys.readouterr().err
    assert main([*words, "stepper=dab"]) == 2
    assert "unknown stepper 'dab'; did you mean 'dba'" in capsys.readouterr().err
