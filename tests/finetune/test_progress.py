"""Progress is told within a fit, too: of one by itself as a job, of one of many as a share of the step."""

from __future__ import annotations

import io

import numpy as np
import pytest

from data_shards.support.progress import Progress
from finetune.fit.linear import RAW, select_linear
from finetune.progress import progress, within
from finetune.splits import selection_folds
from finetune.targets import create_target


def chosen() -> dict[str, float]:
    """The held-out losses of a choice among two reads over some folds."""
    labels = np.arange(20) % 2
    features = {read: np.random.default_rng(seed).normal(size=(20, 3)) for seed, read in enumerate(("embedding", RAW))}
    target = create_target("binary", "ab")
    found = select_linear(
        features, labels[:, None], target, selection_folds(labels, 0), balanced=True, candidates=["vote"]
    )
    return found.held_out_loss


def test_a_fit_that_is_one_of_many_tells_how_far_it_is_before_it_is_done() -> None:
    told = io.StringIO()
    folds = len(selection_folds(np.arange(20) % 2, 0))
    with Progress(3, "fits", "cross-validation", stream=told, seconds=0.0) as shown, within(shown):
        within_it = chosen()
        assert shown.done == 0
    lines = told.getvalue().splitlines()
    shares = [float(line.rpartition("choosing the penalty ")[2]) for line in lines[:-1]]
    assert shares == pytest.approx([part / (2 * folds) for part in range(1, 2 * folds + 1)], rel=1e-3)
    assert all(line.startswith("cross-validation: 0/3 fits") for line in lines[:-1])
    assert within_it == chosen()  # nothing depends on being watched


def test_what_is_done_is_told_no_longer_and_what_nobody_watches_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    told = io.StringIO()
    with Progress(1, "fits", "all", stream=told, seconds=0.0) as shown, within(shown):
        for label in ("features", "choosing"):
            with progress(1, "images", label) as part:
                part.advance(1)
    first, second = told.getvalue().splitlines()[:2]
    assert first.endswith("features 1") and second.endswith("choosing 1") and "features" not in second
    with within(Progress(1, "fits", "all", silent=True)):
        chosen()
    chosen()
    assert capsys.readouterr().err == ""
