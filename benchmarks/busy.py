"""Decompositions of small matrices on a machine that others use, too: on every thread of torch, and on one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch

from benchmarks.table import Table
from pretrain.threads import one_thread

COUNT, REPEATS = 120, 5
SIDES = (16, 32, 64)
ARMS = {"all threads": nullcontext, "one thread": one_thread}


def run() -> Table:
    """Every size with either number of threads in turn, first alone, then beside programs that keep cores busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    others = max(1, (os.cpu_count() or 1) // 2)
    try:
        alone = {side: _seconds(side) for side in SIDES}
        with _busy(others):
            beside = {side: _seconds(side) for side in SIDES}
    finally:
        torch.set_num_threads(before)
    rows = []
    for side in SIDES:
        for where, found in (("alone", alone[side]), (f"beside {others} busy", beside[side])):
            many, one = (found[arm] * 1000 for arm in ARMS)
            rows.append((f"{side}", where, f"{many:.0f}", f"{one:.0f}", f"{many / one:.2f}"))
    return Table(
        title="Eigenvalues of small matrices beside other programs",
        command="python -m benchmarks busy",
        columns=("side", "machine", "all threads, ms", "one thread, as ours, ms", "all / one"),
        rows=tuple(rows),
        remarks=f"torch.linalg.eigh of {COUNT} matrices in float64; median of {REPEATS}, in turn. Busy: programs that "
        "count, one for every two cores. Threads of a decomposition wait for each other at every step of it, and on "
        "a core that another program has for as long as it has it.",
    )


def _seconds(side: int) -> dict[str, float]:
    tokens = torch.randn(COUNT, side, 2 * side, dtype=torch.float64, generator=torch.Generator().manual_seed(side))
    matrices = tokens @ tokens.mT
    taken: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for _ in range(REPEATS):
        for arm, threads in ARMS.items():
            started_s = time.perf_counter()
            with threads():
                torch.linalg.eigh(matrices)
            taken[arm].append(time.perf_counter() - started_s)
    return {arm: sorted(each)[REPEATS // 2] for arm, each in taken.items()}


@contextmanager
def _busy(programs: int) -> Iterator[None]:
    """So many programs that count, while what is within runs."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(programs)]
    try:
        yield
    finally:
        for each in running:
            each.kill()
            each.wait()
