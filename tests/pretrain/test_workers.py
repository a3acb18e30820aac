"""The number of workers and the ZeRO stage change how a run is computed, not what comes out."""

from __future__ import annotations

from pathlib import Path

import pytest

from pretrain.config import PretrainConfig
from tests.pretrain.engine_ranks import ZERO_STEPS, trained_in_float64, zero_stages
from tests.pretrain.ranks import run_ranks
from tests.pretrain.runs import STEPS, Run, document, relative_difference, write_document


@pytest.mark.slow
def test_two_workers_give_the_weights_of_one_after_fifty_steps(unbroken: Run, shards: Path, tmp_path: Path) -> None:
    run = Run(write_document(tmp_path / "config.yaml", document(shards, tmp_path / "out")), tmp_path / "out")
    run.start(workers=2).expect(0)
    assert relative_difference(run.weights(), unbroken.weights()) < 1e-4
    assert len(run.metrics()) == STEPS
    assert unbroken.metrics()[-1]["loss"] < 0.9 * unbroken.metrics()[0]["loss"], "there is something to agree on"
    for two, one in zip(run.metrics(), unbroken.metrics(), strict=True):
        for name in ("loss", "barlow_twins/loss", "byol/loss", "simclr/loss", "embedding_std", "effective_rank"):
            assert two[name] == pytest.approx(one[name], rel=1e-3), (name, one["step"])
        assert two["lr"] == one["lr"]
        assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-2), one["step"]


def test_two_ranks_in_float64_train_as_one_to_the_last_digits(shards: Path) -> None:
    """Rounding aside there is no difference at all: batch norm and EMA buffers, projectors and target included."""
    config = PretrainConfig.model_validate(document(shards, Path("unused")))
    expected = trained_in_float64(0, 1, config, 4)
    for found in run_ranks(trained_in_float64, 2, config, 4):
        assert relative_difference(found, expected) < 1e-11
        changed = [name for name in expected if (found[name].double() - expected[name].double()).abs().max() > 1e-9]
        assert not changed


@pytest.mark.slow
def test_zero_stages_agree_and_resume(colour_shards: Path, tmp_path: Path) -> None:
    run_ranks(zero_stages, 2, colour_shards, tmp_path)
    runs = {name: Run(tmp_path, tmp_path / name) for name in ("stage-0", "stage-1", "stage-2", "stopped")}
    reference = runs["stage-0"]
    for name, run in runs.items():
        assert relative_difference(run.weights(), reference.weights()) < 1e-5, name
        assert [line["step"] for line in run.metrics()] == list(range(1, ZERO_STEPS + 1)), name
        for found, expected in zip(run.metrics(), reference.metrics(), strict=True):
            assert found["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-4), (name, expected["step"])
    stopped, whole = ((runs[name].out / "bundle/model.safetensors").read_bytes() for name in ("stopped", "stage-2"))
    assert stopped == whole, "a run that was stopped goes on to the same bits, its optimizer split over the ranks"
