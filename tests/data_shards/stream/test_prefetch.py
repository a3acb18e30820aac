from __future__ import annotations

import itertools
import threading
import time

import pytest

from data_shards.stream.prefetch import THREAD_NAME, read_in_threads


def square(number: int) -> int:
    if number == 13:
        raise ValueError("broken")
    time.sleep(0.001 * (number % 3))
    return number * number


@pytest.mark.parametrize("readers", [0, 1, 2, 7])
@pytest.mark.parametrize("ahead", [0, 1, 2, 50])
def test_results_come_in_order_and_all(readers: int, ahead: int) -> None:
    results = read_in_threads(square, range(12), readers=readers, ahead=ahead)
    assert list(results) == [number * number for number in range(12)]
    assert not _readers()


@pytest.mark.parametrize("readers", [1, 3])
def test_no_more_than_asked_for_are_made_ahead(readers: int) -> None:
    made: list[int] = []
    ahead = read_in_threads(lambda number: made.append(number) or number, itertools.count(), readers=readers, ahead=3)
    assert next(ahead) == 0
    deadline = time.monotonic() + 5
    while len(made) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert sorted(made) == [0, 1, 2, 3]
    ahead.close()  # type: ignore[attr-defined]
    assert not _readers()


def test_several_threads_work_at_the_same_time() -> None:
    meeting = threading.Barrier(3, timeout=20)
    assert list(read_in_threads(lambda number: meeting.wait() >= 0, range(6), readers=3, ahead=3)) == [True] * 6


@pytest.mark.parametrize("readers", [0, 1, 3])
def test_an_error_comes_after_the_results_before_it(readers: int) -> None:
    results = read_in_threads(square, range(10, 20), readers=readers, ahead=4)
    assert [next(results), next(results), next(results)] == [100, 121, 144]
    with pytest.raises(ValueError, match="broken"):
        next(results)
    with pytest.raises(StopIteration):
        next(results)
    assert not _readers()


def _readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(THREAD_NAME)]
