"""The size of the batches of the next epoch."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median


def next_batch_size(batch_size: int, selected: Sequence[int], delta: int, least: int, most: int) -> int:
    """``B + delta`` where the median ``q`` of selected sizes is above ``0.8 B``, ``B - delta`` where below ``0.2 B``.

    Simionescu et al., arXiv 2208.00815; which ``delta`` is not known. At the borders themselves nothing changes.

    Args:
        batch_size: ``B``, of the epoch that has ended.
        selected: cases that each layer selected in each of its steps.
        delta: by which it grows and shrinks.
        least: smallest size.
        most: largest size.
    """
    q = median(selected)
    # In whole numbers: 0.8 B is none of those that floats hold.
    if 5 * q > 4 * batch_size:
        batch_size += delta
    elif 5 * q < batch_size:
        batch_size -= delta
    return min(max(batch_size, least), most)
