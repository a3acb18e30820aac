"""Every combination is tried by ``make test-all``, a part of them by ``make test``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest


def thinned(cases: Iterable[Sequence[Any]], every: int) -> list[Any]:
    """The cases as parameters of a test, all but each ``every``-th of them slow.

    Args:
        cases: the combinations, in an order in which values return by turns; ``every`` should divide none of the
            numbers of values, so that each value is among those that stay.
        every: one in so many stays.
    """
    return [
        pytest.param(*case, marks=() if number % every == 0 else pytest.mark.slow) for number, case in enumerate(cases)
    ]
