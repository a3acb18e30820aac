"""Memory by the stage of ZeRO: DeepSpeed's own estimators, and hand-computed parts."""

from __future__ import annotations

import pytest

from cluster.plan.checkpoints import checkpoint_bytes
from cluster.plan.memory import STAGES, Module, memory
from cluster.plan.step import Step

NOTHING = Step(0, 0, 0, 0, 0)
LOW = Module(trained=10**9, frozen=0, buffer_bytes=0, state_bytes=8 * 10**9, weight_bytes=2)
FULL = Module(trained=1000, frozen=500, buffer_bytes=60, state_bytes=8000)


@pytest.mark.parametrize("ranks", [1, 4, 64])
def test_stage_two_is_what_deepspeed_estimates(ranks: int) -> None:
    estimators = pytest.importorskip("deepspeed.runtime.zero.stage_1_and_2")
    _, expected = estimators.estimate_zero2_model_states_mem_needs(LOW.trained, ranks, 1, cpu_offload=False)
    assert memory(LOW, NOTHING, stage=2, ranks=ranks, zero={}).update == expected


@pytest.mark.parametrize("ranks", [1, 4, 64])
def test_stage_three_is_what_deepspeed_estimates_and_its_own_part_of_the_weights(ranks: int) -> None:
    estimators = pytest.importorskip("deepspeed.runtime.zero.stage3")
    live = 10**7
    _, expected, gathered = estimators.estimate_zero3_model_states_mem_needs(
        LOW.trained, live, ranks, 1, cpu_offload=False, cpu_offload_params=False
    )
    found = memory(LOW, NOTHING, stage=3, ranks=ranks, zero={"stage3_max_live_parameters": live}).update
    # Of what is gathered it counts gradients too, and of the own part it leaves out the 16-bit weights.
    assert found == expected - gathered // 2 + 2 * LOW.trained // ranks


def test_each_stage_splits_one_part_more() -> None:
    parts = {stage: memory(FULL, NOTHING, stage=stage, ranks=4, zero={"reduce_bucket_size": 100}) for stage in STAGES}
    assert [parts[stage].weights for stage in STAGES] == [6060, 6060, 6060, 1500 + 6000 + 60]
    assert [parts[stage].gradients for stage in STAGES] == [4000, 4000, 1000, 1000]
    assert [parts[stage].optimizer for stage in STAGES] == [8000, 3000, 3000, 3000]  # with own weights, 4 of them
    assert [parts[stage].buckets for stage in STAGES] == [4000, 400, 400, 400]


def test_what_is_there_in_the_backward_pass_is_counted_once() -> None:
    step = Step(flops=1, forward_flops=1, kept_bytes=900, peak_bytes=1000, peak_with_gradients=3000)
    one = memory(FULL, step, stage=0, ranks=1, zero={})
    assert one.backward == 6060 + 8000 + 3000 and one.update == 6060 + 8000 + 4000 + 4000
    assert one.buckets == 0 and one.peak == one.update
    two = memory(FULL, step, stage=2, ranks=2, zero={"reduce_bucket_size": 100, "overlap_comm": True})
    assert two.buckets == 800 and two.backward == 6060 + 6000 + 2000 + 1000 + 800


def test_a_checkpoint_holds_weights_buffers_and_what_the_optimizer_remembers() -> None:
    assert checkpoint_bytes(FULL, 0) == 6000 + 60 + 8000
    assert checkpoint_bytes(FULL, 1) == checkpoint_bytes(FULL, 2) == 6000 + 60 + 8000 + 4000
