"""Ctrl-C and SIGTERM: once is enough, and what follows is not disturbed by more of them."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopAsked(BaseException):
    """SIGTERM has come; like :class:`KeyboardInterrupt` no error, but a wish."""


class Interruptions:
    """A context manager for the signals that end a run, in the main thread; elsewhere it does nothing.

    In the block Ctrl-C raises :class:`KeyboardInterrupt` and SIGTERM :class:`StopAsked`, once: until the block ends
    both signals are ignored from then on, so that impatience does not cut off the clean-up.
    """

    def __init__(self) -> None:
        self._noting = False
        self._noted: list[int] = []
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruptions:
        if threading.current_thread() is threading.main_thread():
            # A shell that starts a program in the background may have it ignore Ctrl-C: that stays so.
            handled = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._handle) for number in handled}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """In this block signals are only noted; :meth:`take` gives them, and :meth:`end` raises for one."""
        self._noting = True
        try:
            yield
        finally:
            self._noting = False

    def take(self) -> int | None:
        """The oldest signal that was noted and not taken yet."""
        return self._noted.pop(0) if self._noted else None

    def end(self, number: int) -> None:
        """Ignore what comes from now on, and raise.

        Raises:
            KeyboardInterrupt: for SIGINT.
            StopAsked: for SIGTERM.
        """
        for handled in self._before:
            signal.signal(handled, signal.SIG_IGN)
        raise KeyboardInterrupt if number == signal.SIGINT else StopAsked

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._noting:
            self._noted.append(number)
        else:
            self.end(number)
