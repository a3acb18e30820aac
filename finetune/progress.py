"""Progress of long work, shown where somebody watches: commands do, the API does not unless it is asked to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar

from data_shards.support.progress import Progress

_watched: ContextVar[bool] = ContextVar("watched", default=False)


@contextmanager
def watched() -> Iterator[None]:
    """Within the block long work tells on standard error how far it is."""
    token = _watched.set(True)
    try:
        yield
    finally:
        _watched.reset(token)


@contextmanager
def unwatched() -> Iterator[None]:
    """Within the block nothing is told: it is one of many steps of something that is."""
    token = _watched.set(False)
    try:
        yield
    finally:
        _watched.reset(token)


@contextmanager
def counted(unit: str, label: str) -> Iterator[Callable[[int, int], None]]:
    """Reports work that is told as "how many are done, of how many", which is not known before the first is.

    Args:
        unit: the plural name of what is counted.
        label: what the work is.
    """
    shown: Progress | None = None
    before = 0
    with ExitStack() as stack:

        def tell(done: int, total: int) -> None:
            nonlocal shown, before
            if shown is None:
                shown = stack.enter_context(progress(total, unit, label))
            elif before + done < shown.done:  # the next split
                before = shown.done
                shown.total = before + total
            shown.advance(before + done - shown.done)

        yield tell


def progress(total: int, unit: str, label: str) -> Progress:
    """A context manager that reports, or not; see :class:`~data_shards.support.progress.Progress`."""
    return Progress(total, unit, label, silent=not _watched.get(), brief=True)
