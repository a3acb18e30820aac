"""A curriculum: the shares of each stage are exact, every dataset goes through whole epochs of its own, and nothing
else moves."""

from __future__ import annotations

import pickle
from collections import Counter

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from data_shards.order.mixture import Stage, shares
from data_shards.order.plan import BatchPlan, Share
from data_shards.support.errors import ConfigError

SHARES = [Share("easy", 40), Share("medium", 25), Share("hard", 61)]
STAGES = [Stage(0, (1.0, 0.0, 0.0)), Stage(23, (1.0, 1.0, 0.0)), Stage(60, (1.0, 1.0, 2.0))]

PINNED = [0, 0, 2, 2, 2, 2, 2, 0, 0, 2, 2, 1, 2, 2, 1, 1, 2, 2, 2, 0, 0, 0, 1, 0, 1, 2]
PINNED_WEIGHTED = [0, 0, 2, 2, 2, 1, 2, 1, 0, 1, 1, 1, 1, 1, 1, 1, 2, 1, 1, 0, 0, 0, 1, 0, 1, 2]
PINNED_SAMPLES = [31, 24, 9, 30, 33]


def plan_of(stages: list[Stage], seed: int = 0) -> BatchPlan:
    return BatchPlan(SHARES, batch_size=5, seed=seed, stages=stages)


def datasets(plan: BatchPlan, steps: int) -> list[int]:
    return [plan.global_batch(*divmod(step, plan.batches_per_epoch)).dataset for step in range(steps)]


def test_shares_are_those_of_the_stage_in_every_round_of_it() -> None:
    plan = plan_of(STAGES)
    length = plan.batches_per_epoch
    assert length == 8 + 5 + 13
    drawn = datasets(plan, 200)
    assert Counter(drawn[:23]) == {0: 23}
    assert Counter(drawn[23 : 23 + length]) == {0: 13, 1: 13}
    assert Counter(drawn[23 + length : 60]) == {0: 6, 1: 5}  # What is left of the stage: 11 steps.
    for first in (60, 60 + length, 60 + 2 * length, 60 + 3 * length):
        assert Counter(drawn[first : first + length]) == {0: 7, 1: 6, 2: 13}
    assert drawn[60 : 60 + length] != drawn[60 + length : 60 + 2 * length], "each round has an order of its own"


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.integers(1, 90), max_size=3, unique=True),
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(1, 4)), min_size=4, max_size=4),
    st.integers(0, 9),
)
def test_every_dataset_shows_each_sample_once_in_each_epoch_of_its_own(
    later: list[int], weights: list[tuple[int, int, int]], seed: int
) -> None:
    firsts = [0, *sorted(later)]
    stages = [Stage(first, tuple(map(float, each))) for first, each in zip(firsts, weights, strict=False)]
    try:
        plan = plan_of(stages, seed)
    except ConfigError:  # a weight too small for one batch; refusals have their own test
        reject()
    showings: Counter[tuple[int, int, int]] = Counter()
    given_by: Counter[int] = Counter()
    ends = {*later, firsts[-1] + plan.batches_per_epoch, firsts[-1] + 2 * plan.batches_per_epoch}
    for step in range(max(ends)):
        batch = plan.global_batch(*divmod(step, plan.batches_per_epoch))
        given_by[batch.dataset] += 1
        showings.update((batch.dataset, batch.dataset_epoch, sample) for sample in batch.sample_B.tolist())
        if step + 1 in ends:  # of a stage or a round: all epochs but the last are whole
            for place, share in enumerate(SHARES):
                shown = Counter(epoch for dataset, epoch, _ in showings if dataset == place)
                whole, begun = divmod(given_by[place], plan.cycle[place])
                assert sorted(shown) == list(range(whole + (begun > 0)))
                assert all(shown[epoch] == share.samples for epoch in range(whole))
    assert set(showings.values()) == {1}


def test_a_step_is_found_without_those_before_it_and_in_another_process_too() -> None:
    whole = [plan_of(STAGES).global_batch(*divmod(step, 26)) for step in range(120)]
    for step in (119, 0, 59, 60, 22, 23, 48, 49):
        for plan in (plan_of(STAGES), pickle.loads(pickle.dumps(plan_of(STAGES)))):
            found = plan.global_batch(*divmod(step, 26))
            assert (found.dataset, found.dataset_epoch) == (whole[step].dataset, whole[step].dataset_epoch)
            assert found.sample_B.tolist() == whole[step].sample_B.tolist()


def test_a_later_stage_changes_nothing_before_it() -> None:
    other = [*STAGES[:2], Stage(60, (0.0, 1.0, 0.0)), Stage(70, (1.0, 1.0, 1.0))]
    assert datasets(plan_of(STAGES), 60) == datasets(plan_of(other), 60)


def test_without_a_curriculum_the_order_is_that_of_old_checkpoints() -> None:
    plan = BatchPlan(SHARES, batch_size=5, seed=3)
    assert datasets(plan, 26) == PINNED
    weighted = BatchPlan(SHARES, batch_size=5, seed=3, weights=[1, 2, 1])
    assert datasets(weighted, 26) == PINNED_WEIGHTED
    assert plan.global_batch(1, 4).sample_B.tolist() == PINNED_SAMPLES


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([Stage(1, (1.0, 1.0, 1.0))], r"stages begin at steps \[1\]; expected 0"),
        ([Stage(0, (1.0, 1.0, 1.0)), Stage(0, (1.0, 1.0, 1.0))], "each after the one before"),
        ([Stage(0, (1.0, 1.0))], "stage 1 has weights .*: expected one number from 0 for each of easy, medium, hard"),
        ([Stage(0, (0.0, 0.0, 0.0))], "and one above 0"),
        ([Stage(0, (1.0, 1e-3, 0.0)), Stage(9, (1.0, 1.0, 1.0))], "medium: weight 0.001 of stage 1 is too small"),
    ],
)
def test_stages_that_cannot_be_followed_are_refused(stages: list[Stage], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan_of(stages)


def test_weights_and_stages_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="weights and stages exclude each other"):
        BatchPlan(SHARES, batch_size=5, seed=0, weights=[1, 1, 1], stages=STAGES)


def test_shares_of_nothing_are_nothing() -> None:
    assert shares(0, (1.0, 2.0)) == [0, 0] and shares(5, (0.0, 1.0)) == [0, 5]
