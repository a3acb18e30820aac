"""The size of the batches of the next epoch, by how the margin loss moves."""

from __future__ import annotations


def size_by_variation(
    batch_size: int, before: float | None, now: float, tolerance: float, delta: int, least: int, most: int
) -> int:
    """The size that follows an epoch; see :class:`~finetune.steppers.edba.stepper.EdbaStepper` for the rule.

    Args:
        batch_size: of the epoch that has ended.
        before: median margin loss of the steps of the epoch before it; None where there was none.
        now: of the epoch that has ended.
        tolerance: relative change that counts for nothing.
        delta: by which the size grows and shrinks.
        least: smallest size.
        most: largest size.
    """
    if before is not None:
        if now <= (1 - tolerance) * before:
            batch_size += delta
        elif now > (1 + tolerance) * before:
            batch_size -= delta
    return min(max(batch_size, least), most)
