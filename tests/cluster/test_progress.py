"""What is shown of a run that goes on after it was cut off."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from cluster.progress import ShownProgress
from cluster.ray_runtime import ATTEMPT_FILE
from pretrain.meter import MetricsFile


def test_steps_that_are_done_again_are_counted_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The run was cut off after step 20 and before its first checkpoint, so it begins at its first step again."""
    path = tmp_path / "metrics.jsonl"
    old = MetricsFile(path, 0)
    for step in (10, 20):
        old.append({"epoch": step / 40, "loss": 1.0}, step)
    with ShownProgress(tmp_path, epochs=1, max_steps=None, initial=0):
        (tmp_path / ATTEMPT_FILE).write_text("1")
        time.sleep(1)  # the steps of the run before are looked at and not shown
        new = MetricsFile(path, 0)
        for step in (10, 20, 30, 40):
            new.append({"epoch": step / 40, "loss": 2.0}, step)
            time.sleep(0.6)
    shown = capsys.readouterr().err
    assert "pretraining: 40 steps in" in shown, shown
