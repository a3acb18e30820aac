"""How far a run is, as lines of its log that a program can read: what ``medformer jobs watch`` shows."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass

MARK = "medformer-status "
ENABLE = "MEDFORMER_STATUS_LINES"
"""Environment variable; the command that trains writes the lines where it is 1."""


@dataclass(frozen=True)
class Status:
    """A point of a run.

    Attributes:
        step: the newest step.
        total: steps of the whole run, 0 while that is not known.
        loss: of the newest line of the curves.
        images_per_s: likewise.
        data_wait: share of the time in which training waited for images.
        attempt: how often workers were started before, from 0.
        checkpoint: step of the newest complete checkpoint; -1 before the first.
        elapsed_s: since the first step of this start of the command.
        begun_at: the step after which it began.
        workers: how many train now; 0 while that is not known.
        gpu_busy: share of the time in which their GPUs compute, the mean; None without a GPU, or without NVML.
        gpu_memory: share of the memory of a GPU that is taken, of the fullest; None without a GPU.
    """

    step: int
    total: int = 0
    loss: float | None = None
    images_per_s: float | None = None
    data_wait: float | None = None
    attempt: int = 0
    checkpoint: int = -1
    elapsed_s: float = 0.0
    begun_at: int = 0
    workers: int = 0
    gpu_busy: float | None = None
    gpu_memory: float | None = None

    @property
    def left_s(self) -> float | None:
        """Seconds to the end at the rate so far."""
        done = self.step - self.begun_at
        if not self.total or done <= 0:
            return None
        return (self.total - self.step) * self.elapsed_s / done

    def line(self) -> str:
        """For the log."""
        return MARK + json.dumps(asdict(self))


def parsed(line: str) -> Status | None:
    """The status of a line of the log, None of any other line."""
    if not line.startswith(MARK):
        return None
    try:
        return Status(**json.loads(line[len(MARK) :]))
    except (ValueError, TypeError):  # a line that was cut off, or of another version
        return None


def wanted() -> bool:
    """Whether the environment asks for the lines."""
    return os.environ.get(ENABLE) == "1"
