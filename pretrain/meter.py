"""Averages of the global batch between two log lines, and the file they are written to."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from data_shards.support.errors import MedformerError
from data_shards.support.files import write_atomic


class Meter:
    """Sums metrics on the device and reduces them once per log line.

    Args:
        device: where the sums lie.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.restart()

    def restart(self) -> None:
        """Begin a new window, which what was done since the last log line is no part of."""
        self._sums: dict[str, Tensor] = {}
        self._steps = 0
        self._images = 0
        self._waited_s = 0.0
        self._since_s = time.perf_counter()

    @property
    def steps(self) -> int:
        """Steps since the last log line."""
        return self._steps

    def add(self, metrics: Mapping[str, Tensor], images: int, waited_s: float) -> None:
        """Add one step: what this rank measured, images of the global batch, seconds spent waiting for data."""
        for name, value in metrics.items():
            self._sums[name] = self._sums.get(name, torch.zeros((), device=self._device)) + value.detach().float()
        self._steps += 1
        self._images += images
        self._waited_s += waited_s

    def reduce(self, extra: Mapping[str, float]) -> dict[str, float]:
        """Means over steps and ranks, the rate and the share of time spent waiting for data; starts anew.

        Args:
            extra: numbers of this rank that are averaged over the ranks with the others.
        """
        elapsed_s = max(time.perf_counter() - self._since_s, 1e-9)
        names = [*self._sums, *extra, "data_wait"]
        means = [self._sums[name] / self._steps for name in self._sums]
        numbers = [*extra.values(), self._waited_s / elapsed_s]
        vector = torch.stack([*means, *torch.tensor(numbers, device=self._device).unbind()])
        dist.all_reduce(vector)
        metrics = dict(zip(names, (vector / dist.get_world_size()).tolist(), strict=True))
        metrics["images_per_s"] = self._images / elapsed_s
        self.restart()
        return metrics


class MetricsFile:
    """``metrics.jsonl``: one JSON object per log line, the record of a run.

    Args:
        path: the file.
        step: lines after this step are dropped: they were written by a run that went on from an older checkpoint
        than its last line.
    """

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        kept = [line for line in read_metrics(path) if line["step"] <= step] if path.exists() else []
        write_atomic(path, "".join(json.dumps(line) + "\n" for line in kept))

    def append(self, metrics: Mapping[str, float], step: int) -> None:
        """Add a line and hand it to the disk.

        Raises:
            MedformerError: the disk refuses.
        """
        try:
            with open(self.path, "a") as file:
                file.write(json.dumps({"step": step, **metrics}) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise MedformerError(f"cannot write {self.path}: {error.strerror or error}") from error


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The log lines of a run; a last line that was cut off by a crash is left out."""
    lines = []
    for text in path.read_text().splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines
