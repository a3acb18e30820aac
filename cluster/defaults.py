"""Settings of Ray and MLflow whose defaults are slow or silent, each with the reason for ours.

They are environment variables, read by Ray and MLflow when they are imported or when they start a process; one that
the user has set is left alone. Names and defaults are those of Ray 2.60 and MLflow 3.17.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

RAY: Mapping[str, str] = {
    # The controller polls its workers, and a report waits for the poll. Default 2 s: up to 2 s per checkpoint.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25",
    # How long the machines may take to come before the wait counts as one failure. Default 60 s, less than a cloud
    # needs to start one.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300",
    # A barrier of Ray Train that one rank never reaches. Default: wait for ever.
    "RAY_TRAIN_COLLECTIVE_TIMEOUT_S": "600",
    # After a failure each survivor is given this time to leave the process group, which one that waits for the lost
    # rank cannot do. Default 30 s, added to every recovery.
    "TORCH_PROCESS_GROUP_SHUTDOWN_TIMEOUT_S": "3",
    # Ray Train moves its workers to a folder of its own; relative paths in a configuration would point elsewhere.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # `print` in a worker is turned into a log record. Default on.
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    # Counters for a Prometheus that a local run does not have. Default on.
    "RAY_TRAIN_METRICS_ENABLED": "0",
    # Workers run below everything else on the machine. Default 15: any other busy process takes most of the cores.
    "RAY_worker_niceness": "0",
    # Nothing is sent to the makers of Ray. Default: sent, after a notice.
    "RAY_USAGE_STATS_ENABLED": "0",
    # A head started by `ray start` still reports that reports are off: to nobody, on this machine.
    "RAY_USAGE_STATS_REPORT_URL": "http://127.0.0.1:9",
    # Ray announces by a warning that it will stop hiding GPUs from workers that ask for none; we do not rely on it.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}

MLFLOW: Mapping[str, str] = {
    # Files above 500 MB go through a tracking server in one request unless this is set, and then run into its
    # timeout. The client goes back to one request by itself where the server cannot. Default false.
    "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "true",
    # Nothing is sent to the makers of MLflow. Default: sent.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # Seven retries with doubling pauses keep a command on a lost server silent for four minutes. Default 7.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    # Progress is shown by us, in one style. Default true.
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # Web addresses and emoji on standard output. Default false, which prints them.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # Migrations of a new database are told line by line. Default INFO.
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}


def apply() -> None:
    """Set every variable that the user has not set; to be called before Ray is started and MLflow is imported."""
    if os.environ.get("RAY_AUTH_TOKEN"):  # Ray does not look at it unless told to, and says only that it is missing
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    for name, value in {**RAY, **MLFLOW}.items():
        os.environ.setdefault(name, value)
