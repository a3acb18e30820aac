"""What a worker is given and what does not fit, against a search over all placements."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.capacity import Machine, Share, described, room, shared_out, shortage

MACHINES = st.lists(st.builds(Machine, st.integers(0, 6), st.integers(0, 3)), min_size=1, max_size=3)


def fits(machines: list[Machine], workers: int, share: Share) -> bool:
    """Whether some assignment of workers to machines overfills none."""
    for places in itertools.product(range(len(machines)), repeat=workers):
        counts = [places.count(number) for number in range(len(machines))]
        if all(
            count * share.threads <= machine.cpus and count * share.gpus <= machine.gpus
            for count, machine in zip(counts, machines, strict=True)
        ):
            return True
    return False


@given(MACHINES, st.integers(1, 4), st.integers(1, 4), st.integers(0, 2))
def test_a_shortage_is_told_exactly_when_no_placement_exists(
    machines: list[Machine], workers: int, threads: int, gpus: int
) -> None:
    share = Share(threads, gpus)
    assert (shortage(machines, workers, share) is None) == fits(machines, workers, share)


@given(MACHINES, st.integers(1, 4))
def test_what_is_left_open_takes_gpus_for_all_or_none_and_all_threads_that_all_can_have(
    machines: list[Machine], workers: int
) -> None:
    share = shared_out(machines, workers, threads=None, gpus=None)
    assert share.gpus == fits(machines, workers, Share(1, 1))
    others = [threads for threads in range(1, 7) if fits(machines, workers, Share(threads, share.gpus))]
    assert share.threads == max(others, default=1)


def test_what_is_given_stays() -> None:
    machines = [Machine(8, 4)]
    assert shared_out(machines, 2, threads=3, gpus=0) == Share(3, 0)
    assert shared_out(machines, 9, threads=3, gpus=1) == Share(3, 1)
    # Four GPUs, and CPUs for two workers that ask for three threads: two workers on GPUs.
    assert shared_out(machines, 2, threads=3, gpus=None) == Share(3, 1)
    assert shared_out(machines, 3, threads=3, gpus=None) == Share(3, 0)


def test_the_head_without_gpus_does_not_count_as_a_place_for_workers_on_gpus() -> None:
    head, node = Machine(4, 0), Machine(16, 8)
    assert shared_out([head, node, node], 16, threads=None, gpus=None) == Share(2, 1)
    assert room([head, node, node], Share(2, 1)) == 16


@pytest.mark.parametrize(
    ("machines", "workers", "share", "message"),
    [
        (
            [Machine(2)],
            2,
            Share(4),
            "asked for 2 workers with 4 CPUs and 0 GPUs each, 8 CPUs in all; there are 2: "
            "1 machine with 2 CPUs and 0 GPUs",
        ),
        (
            [Machine(4), Machine(4)],
            1,
            Share(8),
            "asked for 1 worker with 8 CPUs and 0 GPUs; no machine has 8 CPUs, the most on one is 4: "
            "2 machines with 4 CPUs and 0 GPUs",
        ),
        (
            [Machine(3), Machine(3)],
            3,
            Share(2),
            "asked for 3 workers with 2 CPUs and 0 GPUs each; there is room for 2 of the workers: "
            "2 machines with 3 CPUs and 0 GPUs",
        ),
        (
            [Machine(9, 1)],
            2,
            Share(1, 1),
            "asked for 2 workers with 1 CPU and 1 GPU each, 2 GPUs in all; there are 1: "
            "1 machine with 9 CPUs and 1 GPU",
        ),
    ],
)
def test_a_shortage_tells_both_numbers(machines: list[Machine], workers: int, share: Share, message: str) -> None:
    assert shortage(machines, workers, share) == message


def test_equal_machines_are_told_together() -> None:
    words = described([Machine(4), Machine(16, 8), Machine(16, 8)])
    assert words == "2 machines with 16 CPUs and 8 GPUs, 1 machine with 4 CPUs and 0 GPUs"
    assert described([]) == "no machine"
