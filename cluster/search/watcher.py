"""Tells how trials end, and keeps them in MLflow. Runs in the process of Ray, and needs Ray Tune to be imported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray import cloudpickle
from ray.tune import Callback

from cluster.search.document import SearchConfig
from cluster.search.outcome import number_of, outcome
from cluster.search.records import Records
from cluster.search.trial import REPORTED, STEP


class Watcher(Callback):
    """A callback of Ray Tune.

    Args:
        config: the search.
    """

    def __init__(self, config: SearchConfig) -> None:
        self._metric = config.metric
        self._records = Records(config.out, config.tracking_uri, config.experiment)

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        """A trial begins, or goes on."""
        self._records.begin(f"trial {number_of(trial.trial_id)}", trial.config, trial.trial_id)

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **_: Any) -> None:
        """A trial has reported."""
        self._records.log(result[REPORTED], int(result[STEP]), trial.trial_id)

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        """A trial has ended, or was stopped early."""
        self._end(trial, None)

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        """A trial has failed."""
        self._end(trial, _error_of(trial))

    def _end(self, trial: Any, error: BaseException | None) -> None:
        found = outcome(trial.trial_id, trial.config, trial.last_result or {}, error)
        print(found.told(self._metric), flush=True)
        status = "FAILED" if found.status == "failed" else "FINISHED"
        self._records.end(status, trial.trial_id, outcome=found.status, reason=found.reason)


def _error_of(trial: Any) -> BaseException:
    """What ended a trial: Tune has just written it, and not yet into the folder of the search, where it would look."""
    path = trial.pickled_error_file
    if path is None or not Path(path).exists():
        return RuntimeError("its process was lost")
    error: BaseException = cloudpickle.loads(Path(path).read_bytes())
    return error
