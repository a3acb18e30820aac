"""A pretraining run in MLflow: its configuration and data, its curves and pictures, and how it ended.

All of it is a copy of files in the run's folder, made by a thread of the process that started the training. The
training itself knows nothing of MLflow: a server that is slow, or gone, cannot hold it up, and what the server missed
is sent when it answers again, because the files have it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from cluster.delivery import Delivery
from cluster.errors import RegistryError
from cluster.metrics_file import MetricsFile, Point
from cluster.store import Store, first_line
from cluster.system_metrics import FOLDER as SYSTEM_FOLDER
from data_shards.support.files import write_atomic
from data_shards.support.secrets import without_secrets

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Metric, Run

RUN_ID_FILE = "mlflow_run_id"
_PARAMS_PER_REQUEST = 100  # mlflow.utils.validation.MAX_PARAMS_TAGS_PER_BATCH
_METRICS_PER_REQUEST = 1000  # mlflow.utils.validation.MAX_METRICS_PER_BATCH
_PARAM_LENGTH = 6000  # mlflow.utils.validation.MAX_PARAM_VAL_LENGTH
_INTERVAL_S = 2.0
_PAUSE_AFTER_LOSS_S = 30.0
_FAREWELL_S = 20.0
_INTERRUPTED_FAREWELL_S = 2.0


class TrackedRun:
    """A context manager that keeps an MLflow run in step with a training run's folder.

    The run's id is kept in ``<out>/mlflow_run_id``. A training that is started again from the same folder continues
    the same run, and each step of a curve is logged once: steps that MLflow already has are passed over.

    The end of the block sets the status: finished, failed after an error, killed after an interruption or when
    ``stopped`` was set.

    Attributes:
        run_id: the id of the MLflow run.
        experiment_id: that of its experiment.
        stopped: whether the training was asked to stop before its end.
    """

    def __init__(
        self,
        store: Store,
        out: Path,
        *,
        experiment: str,
        name: str,
        params: Mapping[str, Any],
        tags: Mapping[str, str],
        datasets: Sequence[DatasetInput] = (),
        texts: Mapping[str, str] | None = None,
        warn: Any = print,
        interval_s: float = _INTERVAL_S,
    ) -> None:
        """Create the MLflow run, or continue the one named in the folder.

        Args:
            store: where runs are kept.
            out: the folder of the training run; it exists.
            experiment: the MLflow experiment; made when it is new.
            name: what a new run is called.
            params: the resolved configuration, nested as it is.
            tags: facts about the run, such as the hash of its configuration.
            datasets: what it learns from.
            texts: documents that are kept with the run beside the files of its folder, by name.
            warn: is given the one line that says the server is lost, and the one that says it is back.
            interval_s: how often the file is copied.

        Raises:
            RegistryError: the store refuses.
        """
        self._store = store
        self._out = out
        self._curves = MetricsFile(out / "metrics.jsonl")
        self._machines: dict[Path, MetricsFile] = {}
        self._warn = warn
        self._interval_s = interval_s
        self.stopped = False
        self._status = "KILLED"
        self._stop = threading.Event()
        self._lost = False
        self._unsent: list[Metric] = []
        self._thread = threading.Thread(target=self._follow, name="medformer-tracking", daemon=True)
        run = _continued(store.client, out / RUN_ID_FILE)
        if run is None:
            run = _created(store, experiment, name, params, tags, datasets)
            write_atomic(out / RUN_ID_FILE, run.info.run_id + "\n")
        self.run_id: str = run.info.run_id
        self.experiment_id: str = run.info.experiment_id
        self._delivery = Delivery(store.client, self.run_id, out, texts or {})
        # The steps that an earlier process already sent; batches arrive whole and in order.
        self._logged_until = {metric.key: metric.step for metric in run.data.to_proto().metrics}

    @staticmethod
    def id_of(out: Path) -> str | None:
        """The id that the folder of a run names, or None."""
        path = out / RUN_ID_FILE
        return path.read_text().strip() if path.exists() else None

    def __enter__(self) -> TrackedRun:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        status = "KILLED" if self.stopped else "FINISHED"
        if kind is not None:
            status = "FAILED" if issubclass(kind, Exception) else "KILLED"
        self._status = status
        self._stop.set()
        # Who interrupts a run does not wait for a slow server; the thread ends with the process.
        interrupted = kind is not None and not issubclass(kind, Exception)
        self._thread.join(_INTERRUPTED_FAREWELL_S if interrupted else _FAREWELL_S)

    def _follow(self) -> None:
        while True:
            # The end is waited for too: what a lost server missed is tried once more then.
            stopping = self._stop.wait(_PAUSE_AFTER_LOSS_S if self._lost else self._interval_s)
            try:
                self._copy()
            except Exception as problem:  # Of MLflow, SQL or the network: none of them may end the thread.
                if not self._lost:
                    self._warn(
                        f"tracking: {self._store.shown} is lost ({first_line(problem)}); training goes on, "
                        f"{self._out} has what is missed"
                    )
                self._lost = True
            else:
                if self._lost:
                    self._warn("tracking: the server is back, and has what it missed")
                self._lost = False
            if stopping:
                if not self._lost:
                    self._record_the_end()
                elif self._status == "FINISHED":
                    self._warn("tracking: the run ended meanwhile; the same command with --resume sends what is missed")
                return

    def _record_the_end(self) -> None:
        try:
            self._store.client.set_terminated(self.run_id, self._status)
        except Exception as problem:  # Tracking never decides how a training ends.
            self._warn(f"tracking: the end of the run could not be recorded: {first_line(problem)}")

    def _copy(self) -> None:
        """Send what is new in the files; what could not be sent is kept for the next time."""
        from mlflow.entities import Metric

        # The time is part of what MLflow compares: a batch that arrived although its answer was lost is not kept twice.
        now_ms = int(time.time() * 1000)
        for path in sorted((self._out / SYSTEM_FOLDER).glob("node-*.jsonl")):
            self._machines.setdefault(path, MetricsFile(path, f"system/{path.stem}/"))
        new = [
            point
            for file in (self._curves, *self._machines.values())
            for point in file.new_points()
            if self._is_new(point)
        ]
        self._unsent += [Metric(point.key, point.value, point.time_ms or now_ms, point.step) for point in new]
        while self._unsent:
            batch = self._unsent[:_METRICS_PER_REQUEST]
            self._store.client.log_batch(self.run_id, metrics=batch)
            del self._unsent[: len(batch)]
        self._delivery.send()

    def _is_new(self, point: Point) -> bool:
        if point.step <= self._logged_until.get(point.key, -1):
            return False
        self._logged_until[point.key] = point.step
        return True


def flatten(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The leaves of a nested configuration as ``outer.inner`` keys and text, lists by position, without secrets."""
    for key, value in document.items():
        inner = {str(place): entry for place, entry in enumerate(value)} if isinstance(value, list) else value
        if isinstance(inner, Mapping) and inner:
            yield from flatten(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(without_secrets(str(value)))[:_PARAM_LENGTH]


def _continued(client: MlflowClient, path: Path) -> Run | None:
    """The run named in the folder, or None when there is none or the store does not know it."""
    from mlflow.exceptions import MlflowException

    run_id = TrackedRun.id_of(path.parent)
    if run_id is None:
        return None
    try:
        client.update_run(run_id, status="RUNNING")
        return client.get_run(run_id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise RegistryError(f"cannot continue the MLflow run of {path}: {first_line(error)}") from error


def _created(
    store: Store,
    experiment: str,
    name: str,
    params: Mapping[str, Any],
    tags: Mapping[str, str],
    datasets: Sequence[DatasetInput],
) -> Run:
    from mlflow.entities import Param
    from mlflow.exceptions import MlflowException

    try:
        run = store.client.create_run(store.experiment_id(experiment), run_name=name, tags=dict(tags))
        leaves = iter([Param(key, value) for key, value in flatten(params)])
        while batch := list(islice(leaves, _PARAMS_PER_REQUEST)):
            store.client.log_batch(run.info.run_id, params=batch)
        if datasets:
            store.client.log_inputs(run.info.run_id, datasets)
    except MlflowException as error:
        raise RegistryError(f"cannot start an MLflow run in {store.shown}: {first_line(error)}") from error
    return run
