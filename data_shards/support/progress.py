"""How far a long job is: one moving line on a terminal, a plain line now and then anywhere else."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TextIO

_TERMINAL_SECONDS = 0.1
_PLAIN_SECONDS = 10.0
_BRIEF_SECONDS = 1.0
_WHOLE_RATE = 100.0
"""From it on a rate has no decimals, and no exponent."""


class Progress:
    """A context manager that reports the rate and the time left of a job.

    On a terminal one line is rewritten at most ten times a second; elsewhere (a log file, a pipe) a line is printed
    at most every ten seconds. Both end with a summary when the block ends without an error.

    Args:
        total: how many units the job has; None when that is not known, and then no time left is given.
        unit: the plural name of what is counted, such as ``samples``.
        label: what the job is, such as ``breastmnist``.
        initial: units that were done before, by a run that this one goes on from; they do not count in the rate.
        silent: show nothing, as on every rank but the first.
        brief: show nothing of a job that is over within a second, as one of many small ones.
        stream: where the lines go; the default is standard error.
        seconds: the shortest time between two lines; the default depends on the stream.
    """

    def __init__(
        self,
        total: int | None,
        unit: str,
        label: str,
        *,
        initial: int = 0,
        silent: bool = False,
        brief: bool = False,
        stream: TextIO | None = None,
        seconds: float | None = None,
    ) -> None:
        self.total = total
        self.unit = unit
        self.label = label
        self.done = self.initial = initial
        self._silent = silent
        self._brief = brief
        self._stream = stream if stream is not None else sys.stderr
        self._terminal = self._stream.isatty()
        self._seconds = seconds if seconds is not None else (_TERMINAL_SECONDS if self._terminal else _PLAIN_SECONDS)
        self._figures: dict[str, float] = {}
        self._width = 0
        self._started = self._shown = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the job began."""
        return time.monotonic() - self._started

    def __enter__(self) -> Progress:
        self._started = self._shown = time.monotonic()
        return self

    def begin(self, total: int, done: int) -> None:
        """Start anew: a second pass, or a run that goes on from ``done`` units of an earlier one."""
        self.total = total
        self.done = self.initial = done
        self._started = self._shown = time.monotonic()

    def advance(self, count: int = 1, /, **figures: float) -> None:
        """Count ``count`` more units as done; ``figures`` (a loss, say) are shown beside the rate from now on."""
        self._figures.update(figures)
        self.done += count
        now = time.monotonic()
        if self._brief and now - self._started < _BRIEF_SECONDS:
            return
        if now - self._shown >= self._seconds:
            self._shown = now
            self._show(self._line(now - self._started))

    def forget(self, name: str) -> None:
        """Show a figure no longer; nothing happens where it is not shown."""
        self._figures.pop(name, None)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        elapsed_s = self.elapsed_s
        if kind is None and (not self._brief or elapsed_s >= _BRIEF_SECONDS):
            self._show(
                f"{self.label}: {self.done - self.initial} {self.unit} in {clock(elapsed_s)}{self._rate(elapsed_s)}"
            )
        if self._terminal and self._width:
            self._stream.write("\n")
        self._stream.flush()

    def _line(self, elapsed_s: float) -> str:
        share = f"/{self.total} {self.unit}" if self.total else f" {self.unit}"
        line = f"{self.label}: {self.done}{share}{self._rate(elapsed_s)}"
        if self.total and self.done > self.initial:
            line += f", {clock(elapsed_s / (self.done - self.initial) * max(0, self.total - self.done))} left"
        return line + "".join(f", {name} {value:.4g}" for name, value in self._figures.items())

    def _rate(self, elapsed_s: float) -> str:
        if elapsed_s <= 0:
            return ""
        rate = (self.done - self.initial) / elapsed_s
        return f", {rate:.0f} {self.unit}/s" if rate >= _WHOLE_RATE else f", {rate:.3g} {self.unit}/s"

    def _show(self, line: str) -> None:
        if self._silent:
            return
        if self._terminal:
            self._stream.write("\r" + line.ljust(self._width))
            self._width = len(line)
        else:
            self._stream.write(line + "\n")
        self._stream.flush()


def clock(seconds: float) -> str:
    """A duration as ``h:mm:ss``."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
