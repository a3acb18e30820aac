"""How many images of a rank fit into the memory there is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from cluster.plan.images import Images
from cluster.plan.memory import Memory
from cluster.plan.step import Step, follow
from pretrain.config import PretrainConfig

_MOST_LOOKS = 5
_NEAR = 1.05
_MOST_ROWS = 1 << 16
_MOST_PARTS = 6


@dataclass
class Steps:
    """Steps of one kind of images, followed when they are asked for and kept.

    Attributes:
        config: the run.
        images: what is shown.
        ranks: of the run.
    """

    config: PretrainConfig
    images: Images
    ranks: int
    _kept: dict[tuple[int, int | None], Step] = field(default_factory=dict, repr=False)

    def at(self, rows: int, micro_batch: int | None = None) -> Step:
        """A step of ``rows`` images of this rank, ``micro_batch`` at once.

        Of many micro-batches six are followed at most: operations are nearly the same however many there are, and bytes
        are extended along the line through four and six. The most at once may come at another moment with more of them,
        when the gradients are there: these are added, so that no more is needed than is said.
        """
        if micro_batch is not None and micro_batch >= rows:
            micro_batch = None
        if micro_batch is None or -(-rows // micro_batch) <= _MOST_PARTS:
            return self._followed(rows, micro_batch)
        larger, smaller = -(-rows // 4), -(-rows // _MOST_PARTS)
        four, six = self._followed(rows, larger), self._followed(rows, smaller)

        def bound(name: str) -> int:
            slope = (getattr(four, name) - getattr(six, name)) / (larger - smaller)
            return round(getattr(six, name) - slope * (smaller - micro_batch)) + six.gradient_bytes

        return replace(six, **{name: bound(name) for name in ("kept_bytes", "peak_bytes", "peak_with_gradients")})

    def _followed(self, rows: int, micro_batch: int | None) -> Step:
        if (rows, micro_batch) not in self._kept:
            self._kept[rows, micro_batch] = follow(
                self.config, self.images, rows=rows, ranks=self.ranks, micro_batch=micro_batch
            )
        return self._kept[rows, micro_batch]


def largest_rows(needed: Callable[[int], int], limit: int, start: int, *, least: int = 2) -> int:
    """The largest number for which ``needed`` is within ``limit``, or one at most 5 % below it; 0 when none is.

    Every look at ``needed`` takes seconds, and what it gives is nearly a line: the next place is where a line through
    the two nearest ones meets the limit.

    Args:
        needed: grows with its argument.
        limit: what it may come to.
        start: where to look first.
        least: the smallest number that is of use.
    """
    seen = {least: needed(least)}
    if seen[least] > limit:
        return 0
    fits, over, place = least, _MOST_ROWS, max(start, least + 1)
    for _ in range(_MOST_LOOKS):
        seen[place] = needed(place)
        if seen[place] <= limit:
            fits = max(fits, place)
        else:
            over = min(over, place)
        if over - fits <= 1 or over <= fits * _NEAR:
            break
        one, other = sorted(seen, key=lambda each: abs(seen[each] - limit))[:2]
        slope = (seen[one] - seen[other]) / (one - other)
        guess = int(one + (limit - seen[one]) / slope) if slope > 0 else 2 * fits
        place = min(max(guess, fits + 1), over - 1)
    return fits


def micro_batch(needed: Callable[[int], int], limit: int, rows: int) -> int:
    """Into how many equal micro-batches ``rows`` images have to be cut at least, as the size of one; 0 when none fits.

    Args:
        needed: by the size of a micro-batch: nearly a line.
        limit: what it may come to.
        rows: images of a rank.
    """
    half, quarter = -(-rows // 2), -(-rows // 4)
    if rows < 2 or needed(half) <= limit:
        return half if rows > 1 else 0
    if quarter < half and needed(quarter) <= limit:
        return quarter
    slope = (needed(half) - needed(quarter)) / max(half - quarter, 1)
    guess = int(quarter + (limit - needed(quarter)) / slope) if slope > 0 else 1
    for size in sorted({min(max(guess, 1), quarter), max(guess // 2, 1), 1}, reverse=True):
        whole = -(-rows // -(-rows // size))  # the same number of micro-batches, as equal as can be
        if needed(whole) <= limit:
            return whole
    return 0


def worst(memories: list[Memory]) -> Memory:
    """What is needed for steps of all kinds: of each part the most."""
    parts = {name: max(getattr(each, name) for each in memories) for name in Memory.__dataclass_fields__}
    return replace(memories[0], **parts)
