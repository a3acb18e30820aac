"""A Ray of our own whose raylet dies as it starts: once, as on a machine that is too busy, or each time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(900)]

PROGRAM = """
import os, signal, sys, threading, time
from contextlib import suppress
from pathlib import Path
from cluster import defaults
from cluster.errors import ClusterError
from cluster.ray_cluster import connected
from cluster.session import end_session, members
from cluster.worker_group import WorkerGroup

def kill(number):
    killed = set()
    while len(killed) < number:
        for pid in members(os.getpid()):
            with suppress(OSError):
                if pid not in killed and Path(f"/proc/{pid}/exe").resolve().name == "raylet":
                    os.kill(pid, signal.SIGKILL)
                    killed.add(pid)
        time.sleep(0.005)

defaults.apply()
threading.Thread(target=kill, args=(int(sys.argv[1]),), daemon=True).start()
try:
    with connected(WorkerGroup()):
        import ray
        print("nodes", sum(node["Alive"] for node in ray.nodes()))
except ClusterError as error:
    print(error)
finally:
    end_session(os.getpid())
"""


def said(kills: int, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(kills)],
        capture_output=True, text=True, timeout=600, start_new_session=True, cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_ray_that_does_not_start_is_started_once_more(tmp_path: Path) -> None:
    assert said(1, tmp_path) == "nodes 1\n"


def test_one_that_never_starts_is_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    (line,) = said(2, tmp_path).splitlines()
    assert line.startswith("Ray did not start on this machine, tried twice: ") and "try again when less runs" in line
