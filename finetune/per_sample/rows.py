"""Which case each row of a batch is of, where a network is shown other rows than cases: the studies of bags."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np

_rows: ContextVar[np.ndarray | None] = ContextVar("rows", default=None)


@contextmanager
def rows_of(case_M: np.ndarray | None) -> Iterator[None]:
    """Within the block, row ``m`` of what layers see is of case ``case_M[m]``; None: rows are cases."""
    token = _rows.set(case_M)
    try:
        yield
    finally:
        _rows.reset(token)


def current_rows() -> np.ndarray | None:
    """The case of each row, as the block that is being run says."""
    return _rows.get()
