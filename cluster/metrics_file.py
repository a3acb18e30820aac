"""Reading ``metrics.jsonl`` while a training run is still writing it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Point:
    """One value of a curve.

    Attributes:
        key: its name.
        value: finite.
        step: where.
        time_ms: when it was measured, where the line says it.
    """

    key: str
    value: float
    step: int
    time_ms: int | None = None


class MetricsFile:
    """Gives each complete line once, from the beginning.

    The engine appends one JSON mapping per line, each with its ``step``. After a restart it may cut the file back to
    the step of the checkpoint; the reader then starts again from the beginning, and gives every line once more.
    """

    def __init__(self, path: Path, prefix: str = "") -> None:
        """Nothing is read yet.

        Args:
            path: the file.
            prefix: what the keys begin with.
        """
        self.path, self._prefix = path, prefix
        self._offset = 0
        self._last_line = b""

    def new_points(self) -> Iterator[Point]:
        """The finite numbers in the lines that are complete and were not given yet."""
        if not self.path.exists():
            return
        with open(self.path, "rb") as file:
            file.seek(self._offset - len(self._last_line))
            if file.read(len(self._last_line)) != self._last_line:
                self._offset, self._last_line = 0, b""
                file.seek(0)
            for line in file:
                if not line.endswith(b"\n"):
                    break  # Half written; the rest comes later.
                self._offset += len(line)
                self._last_line = line
                yield from _points(line, self._prefix)


def _points(line: bytes, prefix: str) -> Iterator[Point]:
    try:
        record = json.loads(line)
    except ValueError:
        return  # A line torn by a killed process.
    if not isinstance(record, dict) or not isinstance(record.get("step"), int):
        return
    time_ms = record.pop("time_ms", None)
    for key, value in record.items():
        if key != "step" and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            yield Point(f"{prefix}{key}", float(value), record["step"], time_ms if isinstance(time_ms, int) else None)
