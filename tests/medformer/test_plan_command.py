"""``medformer plan``: what it says of a document, with shards and without, and one line for each mistake."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.plan.gpus import PEAK_TFLOPS
from cluster.plan.interval import daly_s
from data_shards.sources.phantoms import Phantoms
from data_shards.writing.writer import write_dataset
from medformer.cli import main

DOCUMENT = """
out: out
data: {datasets: [{path: shards}], batch_size: 16}
model: {kwargs: {embed_dim: 32, depth: 1, num_heads: 2, latents: 2, latents_per_entry: 1}}
objectives: {simclr: {hidden: 16, out: 8}}
schedule: {epochs: 10}
checkpoint: {every_steps: 5}
"""
TOLD = ("--shape", "1,28,28", "--images", "1000")
Told = Callable[..., dict[str, Any]]


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Told:
    """The plan of a document, as JSON."""
    (tmp_path / "run.yaml").write_text(DOCUMENT)
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> dict[str, Any]:
        assert main(["plan", "run.yaml", "--json", *words]) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    return run


def test_steps_time_and_interval_follow_from_what_is_told(told: Told) -> None:
    plan = told(*TOLD, "--gpus", "4", "--images-per-s", "8", "--mtbf", "4", "--checkpoint-s", "2", "--restart-s", "60")
    assert plan["rows"] == 4 and plan["steps"] == 10 * 63  # 1000 images in batches of 16
    assert plan["rate"]["step_s"] == 4 / 8 and not plan["rate"]["estimated"]
    assert plan["work_s"] == 630 / 2
    kept = plan["checkpoints"]
    assert kept["mtbf_s"] == 3600 and kept["daly_s"] == pytest.approx(daly_s(2, 3600))
    assert kept["best_steps"] == round(kept["daly_s"] / 0.5)
    assert kept["document_goodput"] < kept["goodput"] < 1  # every 5 steps is far too often
    assert plan["expected_s"] == pytest.approx(plan["work_s"] / kept["document_goodput"])


def test_an_estimate_is_operations_over_peak_and_is_called_one(told: Told) -> None:
    plan = told(*TOLD, "--gpus", "2", "--gpu", "a100", "--utilisation", "0.25")
    assert plan["rate"]["step_s"] == pytest.approx(plan["flops"] / (0.25 * PEAK_TFLOPS["A100"] * 1e12))
    assert plan["rate"]["estimated"] and "estimate" in plan["rate"]["basis"]


def test_a_batch_that_does_not_fit_is_told_with_the_micro_batch_that_makes_it_fit(told: Told) -> None:
    roomy = told(*TOLD, "--gpu-memory", "64", "data.batch_size=256")
    assert roomy["fit"]["fits"] and roomy["fit"]["micro_batch_size"] is None
    peak = roomy["memory"][0]["peak"]
    narrow = ["--gpu-memory", str(0.6 * peak / 0.9 / 2**30)]
    tight = told(*TOLD, *narrow, "data.batch_size=256")
    assert not tight["fit"]["fits"] and 100 < tight["fit"]["rows"] < 256
    size = tight["fit"]["micro_batch_size"]
    again = told(*TOLD, *narrow, "data.batch_size=256", f"data.micro_batch_size={size}")
    assert again["fit"]["fits"] and again["flops"] > tight["flops"]
    fewer = told(*TOLD, *narrow, f"data.batch_size={tight['fit']['rows']}")
    assert fewer["fit"]["fits"]


def test_shards_are_read_for_their_shape_and_number_and_nothing_is_written(told: Told, tmp_path: Path) -> None:
    manifest = write_dataset(Phantoms("phantom-knee-mri-2d", subjects=40, images_per_subject=2), tmp_path / "shards")
    train = manifest.splits["train"]
    plan, same = told(), told("--shape", "1,28,28", "--images", str(train.samples))
    assert train.images["image"].shape == (1, 28, 28)
    assert plan["steps"] == 10 * -(-train.samples // 16)
    assert (plan["flops"], plan["memory"], plan["steps"]) == (same["flops"], same["memory"], same["steps"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.yaml", "shards"]


@pytest.mark.slow
def test_steps_taken_here_give_the_rate_and_the_cost_of_a_checkpoint(told: Told, tmp_path: Path) -> None:
    write_dataset(Phantoms("phantom-knee-mri-2d", subjects=40, images_per_subject=2), tmp_path / "shards")
    plan = told("--measure", "2", "--mtbf", "100")
    assert "measured here (cpu)" in plan["rate"]["basis"] and plan["rate"]["step_s"] > 0
    assert plan["checkpoints"]["write_s"] > 0
    assert not (tmp_path / "out").exists()


def test_the_text_names_every_part(told: Told, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["plan", "run.yaml", *TOLD, "--gpus", "2", "--gpu-memory", "16", "--gpu", "H100", "--mtbf", "1000"]) == 0
    )
    text = capsys.readouterr().out
    for word in ("parameters", "TFLOP", "estimate", "ZERO", "at once", "checkpoint", "interval", "goodput"):
        assert word in text
    assert main(["plan", "run.yaml", "--shape", "1,28,28"]) == 0
    text = capsys.readouterr().out
    assert "give --gpu NAME, --images-per-s or --measure" in text and "give --mtbf" in text and "--gpu-memory" in text


@pytest.mark.parametrize(
    "words, said",
    [
        ([], "shards: not a folder of shards: no manifest.json; without shards give --shape C,H,W or C,D,H,W"),
        (["model.name=medformer_nanoo"], "model.name: unknown model 'medformer_nanoo'; did you mean 'medformer_nano'?"),
        (["model.kwargs.dept=1"], "model.kwargs: medformer_nano cannot be made"),
        ([*TOLD, "--gpus", "0"], "--gpus: a positive number is expected"),
        ([*TOLD, "--gpu-memory", "-1"], "--gpu-memory: a positive number"),
        ([*TOLD, "--utilisation", "1.5"], "--utilisation: a positive number is expected, 1 at most"),
        ([*TOLD, "--gpu", "H10"], "--gpu H10: of unknown peak; did you mean 'H100'?"),
        ([*TOLD, "--mtbf", "0"], "--mtbf: a positive number"),
        ([*TOLD, "--node-mtbf", "9", "--gpus-per-node", "0"], "--gpus-per-node 0: at least one"),
        (["--shape", "28,28"], "--shape 28,28: expected C,H,W or C,D,H,W"),
        (["--shape", "1,28,28", "--images", "1"], "--images 1: at least two"),
        (["--shape", "1,28,28", "--shape", "3,28,28"], "--shape: 2 shapes for 1 datasets"),
        ([*TOLD, "--measure"], "--measure: steps are taken on the images of the shards"),
        ([*TOLD, "deepspeed.zero_optimization.stage=4"], "stage: 4; expected 0, 1, 2 or 3"),
        (
            [*TOLD, "optimizer.name=lars", "deepspeed.zero_optimization.stage=1"],
            "lars cannot be used with ZeRO stage 1",
        ),
        ([*TOLD, "model.nam=x"], "unknown key 'model.nam'; did you mean 'name'?"),
        ([*TOLD, "data.batch_size=1"], "data.batch_size 1: each of 1 workers needs two images of every batch"),
    ],
)
def test_a_mistake_is_one_line(told: Told, words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "run.yaml", *words]) == 2
    error = capsys.readouterr().err
    assert said in error and len(error.splitlines()) == 1
