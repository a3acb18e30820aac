"""How far a training on other processes, or other machines, is."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from cluster.metrics_file import MetricsFile
from cluster.ray_runtime import WORKERS_FILE, read_attempt
from cluster.restarts import reasons
from cluster.status_lines import Status, wanted
from data_shards.support.progress import Progress
from pretrain.checkpoint import CheckpointStore

_INTERVAL_S = 0.5
_SHOWN = ("loss", "images_per_s", "data_wait")


class ShownProgress:
    """A context manager that follows a run's folder and shows its steps on standard error.

    Args:
        out: the folder of the run.
        epochs: passes over the data that were asked for.
        max_steps: the limit of steps, or None.
        initial: the step after which the run begins; lines of later ones were left by a run that was cut off.
    """

    def __init__(self, out: Path, epochs: int, max_steps: int | None, *, initial: int = 0) -> None:
        self._epochs = epochs
        self._max_steps = max_steps
        self._file = MetricsFile(out / "metrics.jsonl")
        self._out = out
        self._attempt = read_attempt(out)
        for _ in self._file.new_points():
            pass  # what stands there already is not shown
        self._step = initial
        self._progress = Progress(None, "steps", "pretraining", initial=self._step)
        self._begun, self._lines = False, wanted()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="medformer-progress", daemon=True)

    def __enter__(self) -> ShownProgress:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if self._begun:
            self._progress.__exit__(kind, error, trace)

    def _follow(self) -> None:
        while True:
            stopping = self._stop.wait(_INTERVAL_S)
            self._show()
            if stopping:
                return

    def _show(self) -> None:
        attempt = read_attempt(self._out)
        if attempt is not None and attempt != self._attempt:
            if self._begun:
                why = dict(reasons(self._out)).get(self._attempt, "workers were lost")
                print(f"{why}; started again (attempt {attempt})", file=sys.stderr, flush=True)
            else:
                self._progress.__enter__()  # Not before: the start of the workers is no part of the rate.
            self._begun = True
        self._attempt = attempt
        points = list(self._file.new_points())
        step = max((point.step for point in points), default=0)
        for point in points:
            if point.key == "epoch" and point.value > 0:
                total = round(point.step / point.value) * self._epochs
                self._progress.total = min(total, self._max_steps or total)
        if step > self._step:
            figures = {point.key: point.value for point in points if point.key in _SHOWN}
            self._progress.advance(step - self._step, **figures)
            self._step = step
            if self._lines:
                self._write_status(figures)

    def _write_status(self, figures: Mapping[str, float]) -> None:
        newest = CheckpointStore(self._out / "checkpoints").latest()
        known: dict[str, Any] = {**figures, **_workers(self._out)}
        status = Status(
            self._step,
            self._progress.total or 0,
            attempt=self._attempt or 0,
            checkpoint=-1 if newest is None else newest.step,
            elapsed_s=self._progress.elapsed_s,
            begun_at=self._progress.initial,
            **known,
        )
        print(status.line(), flush=True)


def _workers(out: Path) -> dict[str, Any]:
    """How many workers train, and what their GPUs do; nothing while that is not known."""
    try:
        workers = json.loads((out / WORKERS_FILE).read_text())["workers"]
    except (OSError, ValueError):
        return {}
    gpus = [worker["gpu"] for worker in workers if worker["gpu"] is not None]
    busy = [gpu["busy"] for gpu in gpus if gpu["busy"] is not None]
    return {
        "workers": len(workers),
        "gpu_busy": sum(busy) / len(busy) if busy else None,
        "gpu_memory": max((gpu["memory"] for gpu in gpus), default=None),
    }
