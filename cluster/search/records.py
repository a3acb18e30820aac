"""A search in MLflow: a run of its own, and a run for each trial within it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cluster.store import Store, first_line
from cluster.tracking import flatten
from data_shards.support.files import write_atomic

_FILE = "mlflow_runs.json"
_PARENT = ""


class Records:
    """The MLflow runs of a search, by the names of its trials; their ids are kept in the folder of the search.

    A server that is lost ends nothing: it is said once, and what it missed stays in the folders of the trials.

    Args:
        out: folder of the search.
        tracking_uri: where runs are kept.
        experiment: made when it is missing.
    """

    def __init__(self, out: Path, tracking_uri: str | None, experiment: str) -> None:
        self._path = out / _FILE
        self._uri, self._experiment = tracking_uri, experiment
        self._ids: dict[str, str] = json.loads(self._path.read_text()) if self._path.exists() else {}
        self._store: Store | None = None
        self._lost = False

    def begin(self, name: str, params: Mapping[str, Any], trial: str = _PARENT) -> None:
        """Make the run of a trial, or of the search; one that is there goes on."""

        def begin() -> None:
            from mlflow.entities import Param

            client = self._opened().client
            if trial in self._ids:
                client.update_run(self._ids[trial], status="RUNNING")
                return
            tags = {"mlflow.parentRunId": self._ids[_PARENT]} if trial else {}
            run = client.create_run(self._opened().experiment_id(self._experiment), run_name=name, tags=tags)
            leaves = [Param(key, value) for key, value in flatten(params)]
            for first in range(0, len(leaves), 100):
                client.log_batch(run.info.run_id, params=leaves[first : first + 100])
            self._ids[trial] = run.info.run_id
            write_atomic(self._path, json.dumps(self._ids))

        self._attempt(begin)

    def log(self, metrics: Mapping[str, float], step: int, trial: str = _PARENT) -> None:
        """Take the metrics of a step."""

        def log() -> None:
            from mlflow.entities import Metric

            now_ms = int(time.time() * 1000)
            numbers = [Metric(name, float(value), now_ms, step) for name, value in metrics.items()]
            self._opened().client.log_batch(self._ids[trial], metrics=numbers)

        if trial in self._ids:
            self._attempt(log)

    def end(self, status: str, trial: str = _PARENT, **tags: str) -> None:
        """Set how a run ended, and why."""

        def end() -> None:
            client = self._opened().client
            for name, value in tags.items():
                client.set_tag(self._ids[trial], f"medformer.{name}", value)
            client.set_terminated(self._ids[trial], status)

        if trial in self._ids:
            self._attempt(end)

    def end_all(self, status: str) -> None:
        """Set how every run that is still going on ended, that of the search too."""

        def end() -> None:
            client = self._opened().client
            for run_id in self._ids.values():
                if client.get_run(run_id).info.status == "RUNNING":
                    client.set_terminated(run_id, status)

        self._attempt(end)

    def __getstate__(self) -> dict[str, Any]:
        """Without the connection, which another process opens itself."""
        return {**self.__dict__, "_store": None}

    def _opened(self) -> Store:
        if self._store is None:
            self._store = Store(self._uri)
        return self._store

    def _attempt(self, action: Callable[[], None]) -> None:
        if self._lost:
            return
        try:
            action()
        except Exception as problem:  # Of MLflow, SQL or the network: none of them may end a search.
            self._lost = True
            print(
                f"medformer: tracking: lost ({first_line(problem)}); the search goes on, its folder has all results",
                file=sys.stderr,
                flush=True,
            )
