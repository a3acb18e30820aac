"""Which cluster a job belongs to, told by real processes in the places of a raylet, a supervisor and a job."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.cluster.ray_head import ROOT

JOB = {"RAY_JOB_CONFIG_JSON_ENV_VAR": "{}", "RAY_ADDRESS": "127.0.0.1:1"}
ASK = (
    "from cluster.ray_train import settled; from cluster.worker_group import WorkerGroup; "
    "print(settled(WorkerGroup()).address, settled(WorkerGroup(address='head:6379')).address)"
)
PASS_ON = "import subprocess, sys; sys.exit(subprocess.run(sys.argv[2:]).returncode)"


def asked(environment: dict[str, str], word: str) -> list[str]:
    """The clusters of a process whose grandparent has this word in its command line: none named, and one named."""
    supervisor = [sys.executable, "-c", PASS_ON, "ray::JobSupervisor", sys.executable, "-c", ASK]
    done = subprocess.run(
        [sys.executable, "-c", PASS_ON, word, *supervisor],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.split()


def test_a_job_belongs_to_the_cluster_of_its_raylet_whatever_ray_found_on_the_machine() -> None:
    assert asked(JOB, "--gcs-address=127.0.0.1:6379") == ["127.0.0.1:6379", "head:6379"]


def test_ray_is_believed_where_nothing_better_is_known() -> None:
    assert asked(JOB, "--gcs-address=") == ["127.0.0.1:1", "head:6379"]
    assert asked({"RAY_ADDRESS": "127.0.0.1:1"}, "--gcs-address=127.0.0.1:6379") == ["127.0.0.1:1", "head:6379"]
