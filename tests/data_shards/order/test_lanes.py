from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_shards.order.lanes import LaneOrder, Locality
from data_shards.order.plan import BatchPlan, Share, part, temperature_weights
from data_shards.support.errors import ConfigError

SHARDS = st.lists(st.integers(0, 40), min_size=1, max_size=25).filter(any)
LOCALITY = st.builds(Locality, lanes=st.integers(1, 9), window=st.integers(1, 50))


@given(SHARDS, LOCALITY, st.integers(0, 5))
@settings(max_examples=150)
def test_every_sample_has_one_position(shards: list[int], locality: Locality, epoch: int) -> None:
    order = LaneOrder(np.array(shards), locality, 7, "set", epoch)
    positions = np.random.default_rng(0).permutation(sum(shards))
    found = order(positions)
    assert sorted(found.tolist()) == list(range(sum(shards)))
    # Asked one by one, or by another object, the answer is the same.
    alone = LaneOrder(np.array(shards), locality, 7, "set", epoch)
    assert [int(alone(np.array([place]))[0]) for place in positions[:5]] == found[:5].tolist()


@given(SHARDS, LOCALITY)
@settings(max_examples=100)
def test_a_lane_reads_only_its_shards_and_a_window_of_them_at_a_time(shards: list[int], locality: Locality) -> None:
    total = sum(shards)
    order = LaneOrder(np.array(shards), locality, 1)
    shard_of = np.repeat(np.arange(len(shards)), shards)
    for lane in range(locality.lanes):
        samples = order(np.arange(lane, total, locality.lanes))
        own = set(order.shards_of(lane, lane + 1).tolist())
        assert set(shard_of[samples].tolist()) <= own
        assert len(own - set(np.flatnonzero(np.array(shards) == 0))) == len(set(shard_of[samples].tolist()))
        for start in range(0, len(samples), locality.window):
            window = set(shard_of[samples[start : start + locality.window]].tolist())
            inner = [shards[shard] for shard in window]
            # All but the two at the ends lie wholly inside the window.
            assert sum(sorted(inner)[:-2]) <= locality.window


@given(SHARDS, LOCALITY, st.integers(1, 64), st.integers(1, 7))
@settings(max_examples=100)
def test_an_epoch_shows_everything_once_on_any_number_of_ranks(
    shards: list[int], locality: Locality, batch_size: int, world_size: int
) -> None:
    plan = BatchPlan([Share("set", sum(shards), tuple(shards))], batch_size=batch_size, seed=3, locality=locality)
    copy = pickle.loads(pickle.dumps(plan))
    seen: list[int] = []
    for position in range(plan.batches_per_epoch):
        batch = plan.global_batch(2, position)
        whole = batch.sample_B.tolist()
        cut = [batch.samples(*part(batch.size, rank, world_size)).tolist() for rank in range(world_size)]
        assert [sample for rank in cut for sample in rank] == whole == copy.global_batch(2, position).sample_B.tolist()
        seen += whole
    assert sorted(seen) == list(range(sum(shards)))


def test_each_node_reads_its_part_of_the_shards_in_an_epoch() -> None:
    shards = (100,) * 256
    nodes, lanes = 8, 16
    plan = BatchPlan(
        [Share("set", sum(shards), shards)], batch_size=256, seed=0, locality=Locality(lanes=lanes, window=200)
    )
    read: list[set[int]] = [set() for _ in range(nodes)]
    for position in range(plan.batches_per_epoch):
        batch = plan.global_batch(0, position)
        for node in range(nodes):
            read[node] |= set((batch.samples(*part(batch.size, node, nodes)) // 100).tolist())
    assert set.union(*read) == set(range(256))
    assert max(map(len, read)) == 256 // nodes
    full = BatchPlan([Share("set", sum(shards), shards)], batch_size=256, seed=0)
    half = {int(s) // 100 for position in range(50) for s in full.global_batch(0, position).samples(0, 32)}
    assert len(half) > 250, "a full shuffle has every node read every shard"


def test_epochs_differ_and_neighbours_are_taken_apart() -> None:
    shards = np.full(50, 40)
    first, second = (LaneOrder(shards, Locality(lanes=4, window=160), 0, epoch)(np.arange(2000)) for epoch in (0, 1))
    assert (first == second).mean() < 0.01
    lane = first[::4]
    assert (np.abs(np.diff(lane)) == 1).mean() < 0.05
    assert len({int(sample) // 40 for sample in lane[:40]}) >= 4


def test_a_position_outside_and_shards_that_do_not_add_up_are_refused() -> None:
    order = LaneOrder(np.array([3, 4]), Locality(lanes=2, window=3), 0)
    with pytest.raises(IndexError, match=r"outside range\(7\)"):
        order(np.array([7]))
    with pytest.raises(ConfigError, match="shards of 6 samples, expected 7"):
        BatchPlan([Share("set", 7, (3, 3))], batch_size=2, seed=0, locality=Locality(lanes=1, window=1))


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=8), st.floats(1, 50))
def test_temperature_moves_weights_from_size_to_equality(samples: list[int], temperature: float) -> None:
    natural, warm = temperature_weights(samples, 1), temperature_weights(samples, temperature)
    assert natural == pytest.approx([count / sum(samples) for count in samples])
    for first in range(len(samples)):
        for second in range(len(samples)):
            ratio = samples[first] / samples[second]
            assert warm[first] / warm[second] == pytest.approx(ratio ** (1 / temperature))
    assert temperature_weights(samples, 1e9) == pytest.approx([1 / len(samples)] * len(samples), rel=1e-6)


@pytest.mark.parametrize("temperature", [0.5, -1.0, float("nan"), float("inf")])
def test_a_temperature_below_one_is_refused(temperature: float) -> None:
    with pytest.raises(ConfigError, match="expected a number from 1"):
        temperature_weights([1, 2], temperature)
