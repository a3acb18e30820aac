"""Which checkpoints stay, against a count by hand."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import pytest
from pydantic import ValidationError

from data_shards.support.errors import ConfigError
from pretrain.config import CheckpointConfig, KeepBest
from pretrain.saving.policy import check_metric, retired


class Noted(NamedTuple):
    step: int
    attempt: int
    metrics: dict[str, float]


def steps_kept(found: list[Noted], **config: Any) -> list[int]:
    gone = retired(found, CheckpointConfig.model_validate(config), lambda each: each.metrics)
    assert gone == sorted(gone)
    return [each.step for each in sorted(found) if each not in gone]


LOSSES = [5.0, 2.0, 3.0, math.nan, 2.0, 4.0, 6.0, 7.0]
FOUND = [Noted(step * 10, 0, {"loss": loss}) for step, loss in enumerate(LOSSES, start=1)]


@pytest.mark.parametrize(
    "config, kept",
    [
        ({}, [70, 80]),
        ({"keep": 100}, [10, 20, 30, 40, 50, 60, 70, 80]),
        ({"keep": 1, "every_steps": 10, "keep_every_steps": 30}, [30, 60, 80]),
        ({"keep": 1, "keep_best": {"metric": "loss", "mode": "min"}}, [50, 80]),
        ({"keep": 1, "keep_best": {"metric": "loss", "mode": "min", "count": 3}}, [20, 30, 50, 80]),
        ({"keep": 1, "keep_best": {"metric": "loss", "mode": "max", "count": 2}}, [70, 80]),
        ({"keep": 1, "keep_best": {"metric": "probe/x/knn_auc", "mode": "max"}}, [80]),
        (
            {"keep": 1, "every_steps": 10, "keep_every_steps": 40, "keep_best": {"metric": "loss", "mode": "min"}},
            [40, 50, 80],
        ),
    ],
)
def test_what_stays(config: dict[str, Any], kept: list[int]) -> None:
    assert steps_kept(list(reversed(FOUND)), **config) == kept


def test_of_two_attempts_at_a_step_the_later_is_the_newer() -> None:
    found = [Noted(10, 1, {}), Noted(10, 0, {}), Noted(5, 2, {})]
    assert retired(found, CheckpointConfig(keep=1), lambda each: each.metrics) == [found[2], found[1]]


def test_a_metric_that_is_not_logged_is_named_with_the_nearest() -> None:
    best = KeepBest(metric="lss", mode="min")
    with pytest.raises(ConfigError, match="nothing is logged as 'lss'; did you mean 'loss'"):
        check_metric(best, ["loss", "lr"], probed=False)
    check_metric(KeepBest(metric="probe/x/knn_auc", mode="max"), ["loss"], probed=False)
    with pytest.raises(ConfigError, match="nothing is logged as 'probe/x/knn_auc'; did you mean 'probe/y/knn_auc'"):
        check_metric(KeepBest(metric="probe/x/knn_auc", mode="max"), ["loss", "probe/y/knn_auc"], probed=True)
    check_metric(None, [], probed=True)


@pytest.mark.parametrize(
    "config, message",
    [
        ({"keep_every_steps": 150}, "150 is not a multiple of every_steps, 100"),
        ({"keep_best": {"metric": "loss"}}, "mode"),
        ({"keep_best": {"metric": "loss", "mode": "least"}}, "'min' or 'max'"),
        ({"keep": 0}, "greater than 0"),
    ],
)
def test_a_policy_that_cannot_be_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        CheckpointConfig.model_validate(config)
