"""The time of two programs that do the same work, in one process, in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from scipy.stats import binom


@dataclass(frozen=True)
class Pairs:
    """What was measured.

    Attributes:
        first_s: median of the first program.
        second_s: that of the second.
        ratio: median over the pairs of first : second.
        interval: 95 % interval of this median, from the order of the ratios (the sign test turned round).
    """

    first_s: float
    second_s: float
    ratio: float
    interval: tuple[float, float]

    @property
    def text(self) -> str:
        """The ratio with its interval."""
        return f"{self.ratio:.2f} [{self.interval[0]:.2f}, {self.interval[1]:.2f}]"


def interleaved(first: Callable[[], object], second: Callable[[], object], *, pairs: int, calls: int = 1) -> Pairs:
    """Both in turn on one thread, and which begins a pair alternates; what else the machine does hits both alike.

    Args:
        first: a program.
        second: another.
        pairs: how many, 6 at least.
        calls: of each program in one measurement, where one call is too short to be timed.
    """
    return paired(lambda: _seconds(first, calls), second, pairs=pairs, calls=calls)


def paired(first_s: Callable[[], float], second: Callable[[], object], *, pairs: int, calls: int = 1) -> Pairs:
    """The same for a first program that says itself what it has taken, as one of another process does.

    Args:
        first_s: seconds of the processor for one call.
        second: the other program.
        pairs: how many, 6 at least.
        calls: of the second in one measurement.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        first_s()  # the first call sets much up
        _seconds(second, calls)
        times: list[tuple[float, float]] = []
        for number in range(pairs):
            if number % 2:
                later = _seconds(second, calls)
                times.append((first_s(), later))
            else:
                times.append((first_s(), _seconds(second, calls)))
    finally:
        torch.set_num_threads(threads)
    return of_times(times)


def of_times(times: Sequence[tuple[float, float]]) -> Pairs:
    """What pairs of measurements say; 6 at least."""
    ratios = sorted(one / other for one, other in times)
    below = int(binom.ppf(0.025, len(times), 0.5)) - 1
    return Pairs(
        statistics.median(one for one, _ in times),
        statistics.median(other for _, other in times),
        statistics.median(ratios),
        (ratios[below], ratios[-1 - below]),
    )


def _seconds(program: Callable[[], object], calls: int) -> float:
    """Of the processor, for one call: waiting for it is no work of the program."""
    started_s = time.process_time()
    for _ in range(calls):
        program()
    return (time.process_time() - started_s) / calls
