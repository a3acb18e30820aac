"""Progress of long work, shown where somebody watches: commands do, the API does not unless it is asked to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from types import TracebackType

from data_shards.support.progress import Progress

_watched: ContextVar[bool] = ContextVar("watched", default=False)
_shown: ContextVar[Progress | None] = ContextVar("shown", default=None)
"""Of which long work is one step."""


@contextmanager
def watched() -> Iterator[None]:
    """Within the block long work tells on standard error how far it is."""
    token = _watched.set(True)
    try:
        yield
    finally:
        _watched.reset(token)


@contextmanager
def within(shown: Progress) -> Iterator[None]:
    """Within the block long work is one step of what is shown: how far it is stands there, and it has no line itself.

    Args:
        shown: of which it is a step.
    """
    token = _shown.set(shown)
    try:
        yield
    finally:
        _shown.reset(token)


class _Part(Progress):
    """Progress of a part of one step of another, which tells of it as a share."""

    def __init__(self, total: int, unit: str, label: str, whole: Progress) -> None:
        super().__init__(total, unit, label, silent=True)
        self._whole = whole

    def advance(self, count: int = 1, /, **figures: float) -> None:
        """Count more units as done."""
        super().advance(count, **figures)
        self._whole.advance(0, **{self.label: self.done / self.total if self.total else 1.0})

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self._whole.forget(self.label)


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
    if (whole := _shown.get()) is not None:
        return _Part(total, unit, label, whole)
    return Progress(total, unit, label, silent=not _watched.get(), brief=True)
