"""A run that has gone wrong is named; one that has not is left alone."""

from __future__ import annotations

import math

import pytest
import torch

from data_shards.support.errors import TrainingError
from pretrain.config import HealthConfig
from pretrain.health import HealthMonitor, embedding_spread

GOOD = {"loss": 1.0, "simclr/loss": 1.0, "grad_norm": 1.0, "embedding_std": 0.5}


def test_spread_of_a_collapsed_batch_is_zero_and_of_a_sphere_one() -> None:
    torch.manual_seed(0)
    point = embedding_spread([torch.ones(64, 16) + 1e-7])
    assert point["embedding_std"] == pytest.approx(0, abs=1e-6)
    sphere = embedding_spread([torch.randn(4000, 16)])
    assert sphere["embedding_std"] == pytest.approx(1, abs=0.02)
    assert sphere["effective_rank"] == pytest.approx(16, abs=0.2)
    line = embedding_spread([torch.randn(400, 1) * torch.randn(1, 16)])
    assert line["effective_rank"] == pytest.approx(1, abs=0.01)


def test_uniformity_and_alignment_by_hand() -> None:
    first = torch.tensor([[2.0, 0.0], [-3.0, 0.0]])  # opposite, at distance 2
    second = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])  # one turned by a right angle, the other the same
    found = embedding_spread([first, second])
    assert found["uniformity"] == pytest.approx(-8) and found["alignment"] == pytest.approx(1)
    same = embedding_spread([torch.ones(8, 4)])
    assert same["uniformity"] == pytest.approx(0) and "alignment" not in same


def test_spread_of_embeddings_that_are_not_finite_is_not_a_number() -> None:
    assert all(math.isnan(value) for value in embedding_spread([torch.full((4, 3), math.nan)]).values())


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_the_loss_that_is_not_finite_is_named(value: float) -> None:
    with pytest.raises(TrainingError, match=r"step 7: simclr/loss is (nan|inf)"):
        HealthMonitor(HealthConfig()).check(GOOD | {"simclr/loss": value, "embedding_std": math.nan}, 7)


@pytest.mark.parametrize("norm", [2e4, math.inf, math.nan])
def test_gradient_explosion_is_named(norm: float) -> None:
    with pytest.raises(TrainingError, match="step 7: gradients exploded"):
        HealthMonitor(HealthConfig()).check(GOOD | {"grad_norm": norm}, 7)


def test_collapse_must_last_before_it_stops_the_run() -> None:
    monitor = HealthMonitor(HealthConfig(patience=3, min_embedding_std=0.1))
    collapsed = GOOD | {"embedding_std": 0.05}
    for step, metrics in enumerate([collapsed, collapsed, GOOD, collapsed, collapsed]):
        monitor.check(metrics, step)
    with pytest.raises(TrainingError, match=r"step 5: representation collapsed: embedding_std 0\.05"):
        monitor.check(collapsed, 5)
