"""How many threads small linear algebra has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Run what is within on one thread of the CPU.

    Decompositions of small matrices gain next to nothing from a second one, and their threads wait for each other many
    times in each, which takes several times as long beside another program: ``python -m benchmarks busy``.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
