"""Checkpoint intervals by their formulas, and goodput against runs whose machines fail at random."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cluster.plan.interval import daly_s, goodput, young_s


def test_young_is_the_root_of_twice_cost_times_mtbf() -> None:
    assert young_s(50, 10_000) == 1000


def test_daly_is_young_in_the_limit_and_the_mtbf_when_a_checkpoint_costs_more_than_twice_of_it() -> None:
    assert daly_s(1e-6, 1e6) == pytest.approx(young_s(1e-6, 1e6), rel=1e-5)
    assert daly_s(200, 100) == daly_s(300, 100) == 100
    # By hand: C / 2M = 1 / 100, so sqrt(2 C M) = 200 / 10 = 20 of M = 100, C = 2.
    assert daly_s(2, 100) == pytest.approx(20 * (1 + 0.1 / 3 + 0.01 / 9) - 2)


@pytest.mark.parametrize("write_s, restart_s, mtbf_s", [(5, 60, 3600), (60, 300, 3600), (200, 20, 1800)])
def test_the_interval_of_daly_keeps_as_much_as_the_best_one(write_s: float, restart_s: float, mtbf_s: float) -> None:
    best = max(goodput(work_s, write_s, restart_s, mtbf_s) for work_s in np.geomspace(1, 20 * mtbf_s, 4000))
    # His expansion ends with the third term: the dearer a checkpoint, the more it misses, still next to nothing.
    assert goodput(daly_s(write_s, mtbf_s), write_s, restart_s, mtbf_s) == pytest.approx(best, rel=2e-3)
    assert goodput(4 * daly_s(write_s, mtbf_s), write_s, restart_s, mtbf_s) < 0.98 * best


@pytest.mark.parametrize("work_s, write_s, restart_s, mtbf_s", [(600, 30, 120, 3600), (2400, 60, 300, 1800)])
def test_goodput_is_the_mean_of_runs_whose_machines_fail_at_random(
    work_s: float, write_s: float, restart_s: float, mtbf_s: float
) -> None:
    rng = np.random.default_rng(0)
    wanted, taken_s = 20_000, 0.0
    for _ in range(wanted):
        while True:
            fails_s = rng.exponential(mtbf_s)
            if fails_s >= work_s + write_s:
                taken_s += work_s + write_s
                break
            taken_s += fails_s
            while (again_s := rng.exponential(mtbf_s)) < restart_s:  # it may fail while it starts again
                taken_s += again_s
            taken_s += restart_s
    assert goodput(work_s, write_s, restart_s, mtbf_s) == pytest.approx(wanted * work_s / taken_s, rel=0.02)


def test_goodput_without_failures_is_what_checkpoints_leave_and_zero_when_none_is_ever_reached() -> None:
    assert goodput(90, 10, 1000, None) == 0.9
    assert goodput(1e9, 10, 10, 1.0) == 0.0
    assert math.isclose(goodput(100, 1, 10, 1e15), 100 / 101, rel_tol=1e-6)
